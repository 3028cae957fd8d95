#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace videonsa {

/// "; did you mean NAME?" with the entry of `known` that takes the fewest edits from `word`, or
/// nothing if none is near.
std::string DidYouMean(absl::string_view word, const std::vector<std::string>& known);

}  // namespace videonsa
