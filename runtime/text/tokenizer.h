#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/text/added_token_matcher.h"
#include "runtime/text/bpe.h"
#include "runtime/text/pre_tokenizer.h"
#include "runtime/text/tokenizer_definition.h"

namespace videonsa {

/// Longest text that is encoded; requests are refused far below.
inline constexpr size_t kMaxTextBytes = size_t{1} << 30;

/// Text to token ids and back, for byte-level BPE vocabularies of the Qwen2 family.
///
/// Time is linear in the text up to a logarithm, whatever the text.
///
/// Threads: const methods may be called from any thread.
/// Source:  preprocess-and-model section 4.
class Tokenizer {
 public:
  /// Reads tokenizer.json of a model folder, or vocab.json, merges.txt and (for added tokens)
  /// tokenizer_config.json if there is none.
  ///
  /// Errors: FAILED_PRECONDITION (MODEL_INVALID), naming the file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model_dir);

  /// From the text of a tokenizer.json. Errors: as Load.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(absl::string_view json);

  /// Errors: as Load.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const TokenizerDefinition& definition);

  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Ids of text from outside. No id of a special token is ever among them: what looks like one is
  /// encoded letter by letter. Added tokens that are not special (tool calls) are still found, as
  /// in the reference.
  ///
  /// Errors: INVALID_ARGUMENT (FIELD_INVALID) for invalid UTF-8 or more than kMaxTextBytes;
  ///         RESOURCE_EXHAUSTED (TEXT_TOO_COMPLEX), see PreTokenizer.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const;

  /// Ids of a rendered prompt as the reference makes them, special tokens included. Never for text
  /// from outside. Errors: as Encode.
  absl::StatusOr<std::vector<int32_t>> EncodeWithSpecial(absl::string_view text) const;

  /// Text of `ids`: the bytes of all tokens joined, then read as UTF-8 with U+FFFD for every
  /// maximal invalid part. Ids without a token are dropped, special ones too unless kept.
  std::string Decode(absl::Span<const int32_t> ids, bool keep_special = false) const;

  /// Bytes of one token, empty if `id` has none; valid as long as the tokenizer.
  absl::string_view BytesOf(int32_t id) const { return bpe_->BytesOf(id); }

  bool IsSpecial(int32_t id) const {
    return static_cast<size_t>(id) < is_special_.size() && is_special_[id];
  }

  /// Id of the added token with this content.
  std::optional<int32_t> AddedTokenId(absl::string_view content) const;

  /// One past the largest id of a token.
  int32_t id_limit() const { return bpe_->id_limit(); }

 private:
  Tokenizer() = default;
  absl::StatusOr<std::vector<int32_t>> EncodeText(absl::string_view text, bool take_special) const;
  template <typename Plain>
  static absl::Status SplitAdded(const AddedTokenMatcher& matcher, absl::string_view text,
                                 bool take_special, std::vector<int32_t>& ids, Plain plain);

  std::unique_ptr<BpeModel> bpe_;
  std::unique_ptr<PreTokenizer> splitter_;
  bool nfc_ = false;
  AddedTokenMatcher raw_matcher_;         ///< added tokens matched before normalisation
  AddedTokenMatcher normalized_matcher_;  ///< and after
  std::vector<bool> is_special_;
  absl::flat_hash_map<std::string, int32_t> added_ids_;
};

}  // namespace videonsa
