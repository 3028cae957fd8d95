#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/api/generate_request.h"

namespace videonsa {

/// Number-of-frames request in the terms of the reference (preprocess-and-model section 1.3).
struct FrameCountRequest {
  std::optional<double> fps;
  std::optional<double> num_frames;
  std::optional<int> min_frames;
  std::optional<int> max_frames;
};

/// What the two published pipelines take when the request leaves it open.
struct FrameCountDefaults {
  double fps;
  int max_frames;
  bool max_frames_alone;  ///< max_frames without fps means that many, spread evenly
};
inline constexpr FrameCountDefaults kLmmsEvalFrames{8.0, 2000, true};
inline constexpr FrameCountDefaults kQwenVlUtilsFrames{2.0, 768, false};

/// Frames to take of a clip of `total` frames at `rate` a second: even, 2..total.
///
/// Errors: INVALID_ARGUMENT (FIELD_INVALID) if the rule gives fewer than 2 or more than `total`.
absl::StatusOr<int64_t> CountFrames(const FrameCountRequest& request, int64_t total, double rate,
                                    const FrameCountDefaults& defaults);

/// `count` indices spread over [first, last] as torch.linspace(...).round() in float32.
///
/// Requires: count >= 1, first <= last.
std::vector<int64_t> SpreadIndices(int64_t first, int64_t last, int64_t count);

/// Frames chosen of a clip.
struct FrameChoice {
  std::vector<int64_t> indices;  ///< presentation order, ascending
  double sample_fps = 0;         ///< frames a second of the stretch they came from
};

/// Applies range and rate of `sampling` to a clip of `total` frames at `rate` a second. A clip of
/// one frame, which the reference refuses, gives that frame.
///
/// `default_fps` and `max_frames`: what the server takes when unset, and its ceiling.
/// Errors: INVALID_ARGUMENT (FIELD_INVALID, TOO_MANY_FRAMES).
absl::StatusOr<FrameChoice> ChooseFrames(const VideoSampling& sampling, int64_t total, double rate,
                                         double default_fps, int max_frames);

}  // namespace videonsa
