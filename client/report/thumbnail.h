#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace videonsa::client {

/// One frame of a local clip as JPEG, 320 pixels wide, made by the `ffmpeg` tool in a process of
/// its own (no shell; local files only; ended after 15 s).
///
/// Errors: UNAVAILABLE if the tool is not installed; INVALID_ARGUMENT if it gave no picture.
absl::StatusOr<std::string> MakeThumbnail(const std::string& path, absl::Duration at);

}  // namespace videonsa::client
