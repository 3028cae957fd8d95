#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace videonsa {

/// The printable character that stands for `byte` in byte-level vocabularies, as UTF-8.
///
/// Source: preprocess-and-model section 4: 33-126, 161-172 and 174-255 stand for themselves, the
/// other 68 bytes in increasing order are U+0100 onwards.
absl::string_view ByteCharacter(unsigned char byte);

/// The bytes that `token` stands for, or nothing if one of its characters is not in the alphabet.
/// Requires: valid UTF-8.
std::optional<std::string> BytesOfAlphabetText(absl::string_view token);

/// The alphabet text that stands for `bytes`.
std::string AlphabetTextOf(absl::string_view bytes);

}  // namespace videonsa
