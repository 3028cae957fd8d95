#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace videonsa {

/// The first unit of a byte string read as UTF-8.
struct Utf8Unit {
  enum Kind {
    kValid,       ///< one code point
    kInvalid,     ///< a maximal part that no continuation can repair
    kIncomplete,  ///< the beginning of a code point, cut off by the end of the bytes
  };
  Kind kind = kValid;
  size_t length = 0;  ///< bytes, at least 1
};

/// Requires: `bytes` is not empty.
/// Source: The Unicode Standard, table 3-7 and section 3.9, "maximal subpart".
Utf8Unit NextUtf8Unit(absl::string_view bytes);

/// Offset of the first byte that is not valid UTF-8, or npos.
size_t FindInvalidUtf8(absl::string_view bytes);

/// Appends `bytes` to `out` with U+FFFD for every maximal invalid part; stops before an incomplete
/// code point at the end unless `flush`. Returns the number of bytes used.
size_t AppendUtf8Lossy(absl::string_view bytes, bool flush, std::string& out);

/// The code point that starts at `bytes`. Requires: valid UTF-8, not empty.
char32_t DecodeUtf8(absl::string_view bytes);

/// Appends the UTF-8 form of `code_point`. Requires: a Unicode scalar value.
void AppendUtf8(char32_t code_point, std::string& out);

}  // namespace videonsa
