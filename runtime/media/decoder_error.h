#pragma once

#include "absl/status/status.h"
#include "runtime/media/decoder/wire.h"

namespace videonsa {

/// The typed error of a failure that a decoder reported: MEDIA_UNSUPPORTED, MEDIA_CORRUPT or
/// MEDIA_TOO_LARGE with the numbers. Values outside the closed set mean INTERNAL.
absl::Status ErrorOfFailure(const decoder::ErrorBody& error);

}  // namespace videonsa
