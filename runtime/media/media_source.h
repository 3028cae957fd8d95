#pragma once

#include "absl/status/statusor.h"
#include "runtime/api/generate_request.h"
#include "runtime/media/owned_fd.h"

namespace videonsa {

/// A read-only descriptor of the bytes of `source`: the stored file, or a sealed memory file.
///
/// Errors: NOT_FOUND (CLIP_NOT_FOUND) if the stored file is gone; UNAVAILABLE (OUT_OF_MEMORY).
absl::StatusOr<OwnedFd> OpenSource(const MediaSource& source);

}  // namespace videonsa
