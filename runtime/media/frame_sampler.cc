#include "runtime/media/frame_sampler.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr int kFrameFactor = 2;
constexpr int kMinFrames = 4;

double FloorEven(double value) { return std::floor(value / kFrameFactor) * kFrameFactor; }
double CeilEven(double value) { return std::ceil(value / kFrameFactor) * kFrameFactor; }
double RoundEven(double value) { return std::nearbyint(value / kFrameFactor) * kFrameFactor; }

absl::Status TooManyFrames(const char* field, int value, int limit) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      ErrorInfo{.reason = "TOO_MANY_FRAMES",
                .metadata = {{"value", absl::StrCat(value)}, {"limit", absl::StrCat(limit)}},
                .field = field},
      absl::StrCat(field, " is ", value, ", the limit is ", limit));
}

absl::Status CheckSampling(const VideoSampling& sampling, int max_frames) {
  if (sampling.fps && sampling.num_frames) {
    return InvalidField("num_frames", "fps and num_frames exclude each other");
  }
  if (sampling.fps && !(*sampling.fps > 0 && std::isfinite(*sampling.fps))) {
    return InvalidField("fps", absl::StrCat("fps must be above 0, got ", *sampling.fps));
  }
  if (sampling.num_frames && *sampling.num_frames < kFrameFactor) {
    return InvalidField("num_frames",
                        absl::StrCat("num_frames must be 2 or more, got ", *sampling.num_frames));
  }
  if (sampling.max_frames && *sampling.max_frames < kFrameFactor) {
    return InvalidField("max_frames",
                        absl::StrCat("max_frames must be 2 or more, got ", *sampling.max_frames));
  }
  if (sampling.num_frames && *sampling.num_frames > max_frames) {
    return TooManyFrames("num_frames", *sampling.num_frames, max_frames);
  }
  if (sampling.max_frames && *sampling.max_frames > max_frames) {
    return TooManyFrames("max_frames", *sampling.max_frames, max_frames);
  }
  return absl::OkStatus();
}

struct Window {
  int64_t first;
  int64_t last;
};

// The time window in frames: both ends clamped to the clip, inclusive.
absl::StatusOr<Window> WindowOf(const VideoSampling& sampling, int64_t total, double rate) {
  Window window{0, total - 1};
  if (!sampling.range_begin && !sampling.range_end) return window;
  const double length = static_cast<double>(total) / rate;
  if (sampling.range_begin) {
    const double begin = std::clamp(absl::ToDoubleSeconds(*sampling.range_begin), 0.0, length);
    window.first = static_cast<int64_t>(std::ceil(begin * rate));
  }
  if (sampling.range_end) {
    const double end = std::clamp(absl::ToDoubleSeconds(*sampling.range_end), 0.0, length);
    window.last = std::min(static_cast<int64_t>(std::floor(end * rate)), total - 1);
  }
  if (window.first >= window.last) {
    return InvalidField(
        "range", absl::StrCat("the time range covers frames ", window.first, " to ", window.last,
                              " of ", total, "; it must cover at least 2"));
  }
  return window;
}

}  // namespace

absl::StatusOr<int64_t> CountFrames(const FrameCountRequest& request, int64_t total, double rate,
                                    const FrameCountDefaults& defaults) {
  const double all = static_cast<double>(total);
  double count;
  if (request.num_frames) {
    count = RoundEven(*request.num_frames);
  } else if (!request.fps && request.max_frames && defaults.max_frames_alone) {
    count = FloorEven(std::min<double>(*request.max_frames, all));
  } else {
    const double least = CeilEven(request.min_frames.value_or(kMinFrames));
    const double most = FloorEven(request.max_frames ? *request.max_frames
                                                     : std::min<double>(defaults.max_frames, all));
    const double wish = all / rate * request.fps.value_or(defaults.fps);
    count = FloorEven(std::min(std::min(std::max(wish, least), most), all));
  }
  if (!(count >= kFrameFactor && count <= all)) {
    return InvalidField("num_frames", absl::StrCat("the request asks for ", count, " of ", total,
                                                   " frames; 2 to ", total, " can be taken"));
  }
  return static_cast<int64_t>(count);
}

std::vector<int64_t> SpreadIndices(int64_t first, int64_t last, int64_t count) {
  VNSA_CHECK(count >= 1 && first <= last);
  std::vector<int64_t> indices(count, first);
  if (count == 1) return indices;
  const auto start = static_cast<float>(first), end = static_cast<float>(last);
  const float step = (end - start) / static_cast<float>(count - 1);
  for (int64_t i = 0; i < count; ++i) {
    const float place = i < count / 2 ? std::fma(step, static_cast<float>(i), start)
                                      : std::fma(-step, static_cast<float>(count - 1 - i), end);
    indices[i] = static_cast<int64_t>(std::nearbyint(place));
  }
  return indices;
}

absl::StatusOr<FrameChoice> ChooseFrames(const VideoSampling& sampling, int64_t total, double rate,
                                         double default_fps, int max_frames) {
  VNSA_RETURN_IF_ERROR(CheckSampling(sampling, max_frames));
  VNSA_CHECK(total > 0 && rate > 0);
  VNSA_ASSIGN_OR_RETURN(const Window window, WindowOf(sampling, total, rate));
  const int64_t in_window = window.last - window.first + 1;
  FrameChoice choice;
  int64_t count = 1;
  if (in_window > 1) {
    FrameCountRequest request{.max_frames = sampling.max_frames.value_or(max_frames)};
    if (sampling.num_frames) {
      request.num_frames = *sampling.num_frames;
    } else {
      request.fps = sampling.fps.value_or(default_fps);
    }
    VNSA_ASSIGN_OR_RETURN(count, CountFrames(request, in_window, rate, kLmmsEvalFrames));
  }
  choice.indices = SpreadIndices(window.first, window.last, count);
  choice.sample_fps = static_cast<double>(count) / static_cast<double>(in_window) * rate;
  return choice;
}

}  // namespace videonsa
