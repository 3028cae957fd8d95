#include "runtime/media/smart_resize.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr int kMaxAspect = 200;

// nearbyint rounds half to even in the default rounding mode.
double RoundTo(double value) { return std::nearbyint(value / kResizeFactor) * kResizeFactor; }
double FloorTo(double value) { return std::floor(value / kResizeFactor) * kResizeFactor; }
double CeilTo(double value) { return std::ceil(value / kResizeFactor) * kResizeFactor; }

}  // namespace

absl::StatusOr<FrameSize> SmartResize(FrameSize size, PixelLimits limits, SmartResizeRules rules) {
  const double height = size.height, width = size.width;
  if (rules == SmartResizeRules::kUtils && limits.max < limits.min) {
    return InvalidField(
        "max_pixels", absl::StrCat("max_pixels ", limits.max, " is below min_pixels ", limits.min));
  }
  if (std::max(height, width) / std::min(height, width) > kMaxAspect) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "MEDIA_UNSUPPORTED",
        absl::StrCat("frame of ", size.width, " x ", size.height, " pixels: one side is more than ",
                     kMaxAspect, " times the other"));
  }
  const double first_floor = rules == SmartResizeRules::kTransformers ? 0 : kResizeFactor;
  const double shrink_floor = rules == SmartResizeRules::kUtils ? 0 : kResizeFactor;
  double h = std::max(first_floor, RoundTo(height));
  double w = std::max(first_floor, RoundTo(width));
  if (h * w > limits.max) {
    const double beta = std::sqrt(height * width / limits.max);
    h = std::max(shrink_floor, FloorTo(height / beta));
    w = std::max(shrink_floor, FloorTo(width / beta));
  } else if (h * w < limits.min) {
    const double beta = std::sqrt(limits.min / (height * width));
    h = CeilTo(height * beta);
    w = CeilTo(width * beta);
  }
  if (h < kResizeFactor || w < kResizeFactor) {
    return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_UNSUPPORTED",
                     absl::StrCat("frame of ", size.width, " x ", size.height, " pixels becomes ",
                                  w, " x ", h, " within ", limits.max, " pixels"));
  }
  return FrameSize{static_cast<int>(h), static_cast<int>(w)};
}

}  // namespace videonsa
