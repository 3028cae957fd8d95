#pragma once

#include <atomic>
#include <functional>

#include "runtime/media/media_loader.h"

namespace videonsa {

/// A media loader without decoders: `num_frames` frames (default 4) of 56 x 56 pixels whose patches
/// are a function of the source's digest and sampling; sources named "bad" are corrupt.
///
/// Threads: as MediaLoader; hooks are set before use.
class FakeMediaLoader : public MediaLoader {
 public:
  absl::StatusOr<LoadedVisual> LoadVideo(const MediaSource& source, const VideoSampling& sampling,
                                         const LoadControl& control) override;
  absl::StatusOr<LoadedVisual> LoadImage(const ImagePart& image,
                                         const LoadControl& control) override;
  absl::StatusOr<LoadedVisual> PlanVideo(const MediaSource& source,
                                         const VideoSampling& sampling) override;
  absl::StatusOr<LoadedVisual> PlanImage(const ImagePart& image) override;
  absl::StatusOr<MediaFacts> Probe(const MediaSource& source) override;
  int num_decoders() const override { return 1; }

  int num_loads() const { return loads_.load(); }
  /// Called in every load, outside all locks, before it looks at its control.
  std::function<void()> on_load;

 private:
  std::atomic<int> loads_{0};
};

/// A source of the fake: its digest is that of `name`.
MediaSource FakeSource(const std::string& name);

}  // namespace videonsa
