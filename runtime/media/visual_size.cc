#include "runtime/media/visual_size.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr int64_t kCell = int64_t{kResizeFactor} * kResizeFactor;
// The evaluation wrapper's own limits, for clips and pictures.
constexpr int64_t kWrapperMinPixels = 256 * kCell;
constexpr int64_t kWrapperMaxPixels = 2048 * kCell;
// Limits of the processor and of pictures upstream.
constexpr int64_t kImageMinPixels = 4 * kCell;
constexpr int64_t kImageMaxPixels = 16384 * kCell;
constexpr int64_t kUtilsVideoMinPixels = 128 * kCell;
constexpr int64_t kVideoMaxPixels = 768 * kCell;
constexpr double kTotalPixels = 128000.0 * kCell * 0.9;
constexpr double kMinPixelsHeadroom = 1.05;

int64_t FirstSet(std::optional<int64_t> requested, int64_t option, int64_t fallback) {
  if (requested) return *requested;
  return option > 0 ? option : fallback;
}

absl::Status CheckRequested(const RequestedPixels& requested) {
  for (const auto& [name, value] :
       {std::pair{"min_pixels", requested.min}, std::pair{"max_pixels", requested.max}}) {
    if (!value || (*value > 0 && *value <= kImageMaxPixels)) continue;
    return InvalidField(
        name, absl::StrCat(name, " must be within 1 to ", kImageMaxPixels, ", got ", *value));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<VisualSize> VideoSize(FrameSize source, int64_t num_frames, PreprocessMode mode,
                                     const RequestedPixels& requested,
                                     const MediaOptions& options) {
  VNSA_RETURN_IF_ERROR(CheckRequested(requested));
  const bool eval = mode == PreprocessMode::kLmmsEval;
  const int64_t least = FirstSet(requested.min, options.video_min_pixels,
                                 eval ? kWrapperMinPixels : kUtilsVideoMinPixels);
  const int64_t most =
      FirstSet(requested.max, options.video_max_pixels, eval ? kWrapperMaxPixels : kVideoMaxPixels);
  const double total = options.video_total_pixels > 0
                           ? static_cast<double>(options.video_total_pixels)
                           : kTotalPixels;
  const double budget = std::max(
      std::min<double>(kVideoMaxPixels, total / static_cast<double>(num_frames) * 2),
      static_cast<double>(static_cast<int64_t>(static_cast<double>(least) * kMinPixelsHeadroom)));
  const PixelLimits limits{static_cast<double>(least), std::min(static_cast<double>(most), budget)};
  VisualSize size;
  VNSA_ASSIGN_OR_RETURN(
      size.first,
      SmartResize(source, limits, eval ? SmartResizeRules::kReleased : SmartResizeRules::kUtils));
  // The processor resizes again: within the wrapper's limits, or upstream within its own.
  const PixelLimits again{static_cast<double>(eval ? least : kImageMinPixels),
                          static_cast<double>(eval ? most : kImageMaxPixels)};
  VNSA_ASSIGN_OR_RETURN(size.final,
                        SmartResize(size.first, again, SmartResizeRules::kTransformers));
  return size;
}

absl::StatusOr<VisualSize> ImageSize(FrameSize source, PreprocessMode mode,
                                     const RequestedPixels& requested,
                                     const MediaOptions& options) {
  VNSA_RETURN_IF_ERROR(CheckRequested(requested));
  const bool eval = mode == PreprocessMode::kLmmsEval;
  const PixelLimits limits{
      static_cast<double>(FirstSet(requested.min, options.image_min_pixels,
                                   eval ? kWrapperMinPixels : kImageMinPixels)),
      static_cast<double>(FirstSet(requested.max, options.image_max_pixels,
                                   eval ? kWrapperMaxPixels : kImageMaxPixels))};
  VisualSize size;
  VNSA_ASSIGN_OR_RETURN(
      size.first,
      SmartResize(source, limits, eval ? SmartResizeRules::kReleased : SmartResizeRules::kUtils));
  const PixelLimits again = eval ? limits
                                 : PixelLimits{static_cast<double>(kImageMinPixels),
                                               static_cast<double>(kImageMaxPixels)};
  VNSA_ASSIGN_OR_RETURN(size.final,
                        SmartResize(size.first, again, SmartResizeRules::kTransformers));
  return size;
}

}  // namespace videonsa
