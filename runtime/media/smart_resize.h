#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace videonsa {

/// Pixel sizes are multiples of this after smart resizing: 2 x 2 patches of 14.
inline constexpr int kResizeFactor = 28;

/// Height and width in pixels.
struct FrameSize {
  int height = 0;
  int width = 0;
  int64_t pixels() const { return int64_t{height} * width; }
  friend bool operator==(const FrameSize&, const FrameSize&) = default;
};

/// Pixel limits of a frame; fractions occur because budgets are divided.
struct PixelLimits {
  double min = 0;
  double max = 0;
};

/// The three published copies of smart_resize, which differ at the edges
/// (preprocess-and-model section 2.1).
enum class SmartResizeRules { kReleased, kUtils, kTransformers };

/// Size that a frame of `size` is brought to: multiples of 28 near the limits, aspect kept.
///
/// Errors: INVALID_ARGUMENT (MEDIA_UNSUPPORTED) if one side is more than 200 times the other, or a
///         side would be 0; FIELD_INVALID if the rules want min <= max.
absl::StatusOr<FrameSize> SmartResize(FrameSize size, PixelLimits limits, SmartResizeRules rules);

}  // namespace videonsa
