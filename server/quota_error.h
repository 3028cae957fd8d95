#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// RESOURCE_EXHAUSTED (QUOTA_EXCEEDED), to be tried again: `quota` ("clip_bytes") would hold
/// `wanted` and may hold `limit`.
absl::Status OverQuota(absl::string_view quota, int64_t wanted, int64_t limit);

}  // namespace videonsa
