#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace videonsa {

/// Unicode normalisation form C of `text`, or nothing done if `text` is in it already and cheaply
/// seen to be: then `storage` is untouched and `text` is returned.
///
/// Requires: valid UTF-8.
/// Lifetime: the result points into `text` or `storage`.
absl::string_view NormalizeNfc(absl::string_view text, std::string& storage);

}  // namespace videonsa
