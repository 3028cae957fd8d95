#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace videonsa {

/// Reads a number of at least 0 with an optional suffix K, M, G or T (1024 each); false if it is
/// none or does not fit.
bool ParseByteSize(absl::string_view text, int64_t* bytes);

/// The shortest form that ParseByteSize reads.
std::string FormatByteSize(int64_t bytes);

}  // namespace videonsa
