#pragma once

#include <cstdint>
#include <string>

#include "runtime/text/tokenizer.h"

namespace videonsa {

/// Turns a stream of token ids into text fragments of whole characters. All fragments joined are
/// Tokenizer::Decode of all ids.
///
/// Threads: one at a time. Lifetime: the tokenizer must outlive it.
class IncrementalDetokenizer {
 public:
  explicit IncrementalDetokenizer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// Text that became complete with `id`: empty while a character is unfinished and for special
  /// tokens; U+FFFD for bytes that no following token can complete.
  std::string Append(int32_t id);

  /// The end of the stream: U+FFFD for an unfinished character. Starts anew.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;  ///< at most 3 bytes: the beginning of a character
};

}  // namespace videonsa
