#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/api/generate_request.h"
#include "runtime/api/generate_result.h"
#include "runtime/api/media_facts.h"
#include "runtime/step/patch_batch.h"
#include "runtime/telemetry/metric_sets.h"

namespace videonsa {

/// Limits and defaults of visual preprocessing; from the checkpoint's preprocessor_config.json and
/// the server's options.
struct MediaOptions {
  std::string decoder_binary;
  int decoder_processes = 2;
  double default_fps = 2.0;
  int max_frames = 768;          ///< default and ceiling of frames a clip
  int64_t video_min_pixels = 0;  ///< per frame; 0: the mode's own default
  int64_t video_max_pixels = 0;
  int64_t video_total_pixels = 0;  ///< over all frames; 0: the mode's own default
  int64_t image_min_pixels = 0;
  int64_t image_max_pixels = 0;
  PreprocessMode mode = PreprocessMode::kLmmsEval;
  int64_t max_source_pixels = 8'850'000;
  absl::Duration max_clip_duration = absl::Hours(2);
  absl::Duration decode_timeout = absl::Seconds(120);
};

/// Some whole temporal patches of a clip, handed over while later ones are still being decoded.
struct PatchPiece {
  PatchGrid whole;                            ///< grid of the whole clip
  int t_begin = 0;                            ///< first temporal patch of this piece
  std::shared_ptr<const PatchBatch> patches;  ///< grid.t is the piece's own
};

/// What stops a load from outside, and who hears of its progress. All optional.
struct LoadControl {
  std::shared_ptr<const std::atomic<bool>> cancelled;
  absl::Duration deadline = absl::InfiniteDuration();  ///< monotonic clock reading
  /// Called from the loading thread with ("decode" | "preprocess", frames done, frames in all).
  std::function<void(const char* stage, int64_t done, int64_t total)> progress;
  /// If set, LoadVideo hands its rows over in pieces, in order, from the loading thread, and leaves
  /// LoadedVisual::patches null: memory is then bounded by a piece, not by the clip. May block (the
  /// decoder waits); an error stops the load and is returned.
  std::function<absl::Status(PatchPiece piece)> take_piece;
};

/// One visual, ready for the vision tower.
struct LoadedVisual {
  std::shared_ptr<const PatchBatch> patches;  ///< null from Plan*, and when handed over in pieces
  PatchGrid grid;
  VisualReport report;           ///< all but tokens' place in the prompt
  double second_per_grid = 1.0;  ///< time step argument of M-RoPE (1.0 in kLmmsEval)
  absl::Duration decode_time, preprocess_time;
};

/// Turns stored bytes into patches through videonsa-decoder processes; never runs a demuxer itself.
///
/// Threads: all methods may be called from any thread; a load waits for a free decoder process.
/// Errors:  INVALID_ARGUMENT (MEDIA_UNSUPPORTED, MEDIA_CORRUPT, MEDIA_TOO_LARGE, FIELD_INVALID,
///          TOO_MANY_FRAMES), DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE (DECODER_DIED, retry).
class MediaLoader {
 public:
  /// Starts the decoder processes. Errors: FAILED_PRECONDITION if the binary does not start.
  static absl::StatusOr<std::unique_ptr<MediaLoader>> Create(const MediaOptions& options,
                                                             const MediaMetrics& metrics = {});
  virtual ~MediaLoader() = default;

  virtual absl::StatusOr<LoadedVisual> LoadVideo(const MediaSource& source,
                                                 const VideoSampling& sampling,
                                                 const LoadControl& control) = 0;
  virtual absl::StatusOr<LoadedVisual> LoadImage(const ImagePart& image,
                                                 const LoadControl& control) = 0;
  /// Grid, frame times and sizes as the Load call would give them; decodes nothing.
  virtual absl::StatusOr<LoadedVisual> PlanVideo(const MediaSource& source,
                                                 const VideoSampling& sampling) = 0;
  virtual absl::StatusOr<LoadedVisual> PlanImage(const ImagePart& image) = 0;
  virtual absl::StatusOr<MediaFacts> Probe(const MediaSource& source) = 0;
  /// Decoder processes alive now.
  virtual int num_decoders() const = 0;
};

}  // namespace videonsa
