#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// A token matched in text before normal tokenisation.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;     ///< a control token: user text never becomes it
  bool normalized = false;  ///< matched after normalisation instead of before
};

/// A byte-level BPE tokenizer as its files describe it, not yet checked for consistency.
struct TokenizerDefinition {
  std::string file;                                    ///< name for error messages, without folder
  std::vector<std::pair<std::string, int32_t>> vocab;  ///< tokens in the byte alphabet
  std::vector<std::pair<std::string, std::string>> merges;  ///< by rank, the first is best
  std::vector<AddedToken> added_tokens;
  /// Regular expressions applied one after the other; matches and the text between become pieces.
  std::vector<std::string> split_patterns;
  bool nfc = false;            ///< normalise to form C before splitting
  bool ignore_merges = false;  ///< a piece that is a token is not merged
};

/// Ids are below this: more than any published vocabulary, few enough for tables by id.
inline constexpr int32_t kMaxTokenIds = 1 << 22;
/// Longest text of one added token.
inline constexpr size_t kMaxAddedTokenBytes = 1024;
/// Largest tokenizer file read.
inline constexpr int64_t kMaxTokenizerFileBytes = int64_t{128} << 20;

/// The split pattern of Qwen2, for folders without tokenizer.json.
extern const char kQwen2SplitPattern[];

/// FAILED_PRECONDITION, reason MODEL_INVALID, naming the file of the model folder at fault.
absl::Status ModelFileError(absl::string_view file, absl::string_view problem);

}  // namespace videonsa
