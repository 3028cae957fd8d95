#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "runtime/media/media_loader.h"
#include "runtime/media/smart_resize.h"

namespace videonsa {

/// Sizes of the two resizes of a frame or picture; equal where the second changes nothing.
struct VisualSize {
  FrameSize first;  ///< after resize A: integers
  FrameSize final;  ///< after resize B: what the patches are cut from
};

/// Pixel limits of one request; unset means the mode's own.
struct RequestedPixels {
  std::optional<int64_t> min;
  std::optional<int64_t> max;
};

/// Sizes for the `num_frames` frames of a clip whose frames are `source`.
///
/// Errors:  INVALID_ARGUMENT (FIELD_INVALID, MEDIA_UNSUPPORTED).
/// Source:  preprocess-and-model sections 1.1, 1.5, 2.1, 2.2.
absl::StatusOr<VisualSize> VideoSize(FrameSize source, int64_t num_frames, PreprocessMode mode,
                                     const RequestedPixels& requested, const MediaOptions& options);

/// Sizes for a picture. Errors as VideoSize.
absl::StatusOr<VisualSize> ImageSize(FrameSize source, PreprocessMode mode,
                                     const RequestedPixels& requested, const MediaOptions& options);

}  // namespace videonsa
