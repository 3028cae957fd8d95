#include "tests/support/fake_media.h"

#include <utility>

#include "runtime/base/error.h"

namespace videonsa {
namespace {

absl::StatusOr<LoadedVisual> Shape(const MediaSource& source, int frames, bool image) {
  if (source.path == "bad") {
    return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_CORRUPT", "the clip is corrupt");
  }
  LoadedVisual visual;
  visual.grid = {(frames + 1) / 2, 4, 4};
  visual.report.image = image;
  visual.report.width = visual.report.height = 56;
  for (int i = 0; i < frames; ++i) visual.report.frame_times.push_back(absl::Seconds(i));
  return visual;
}

// Fills the patches with small numbers that depend on the source.
void FillPatches(const MediaSource& source, LoadedVisual& visual) {
  auto patches = std::make_shared<PatchBatch>();
  patches->image = visual.report.image;
  patches->grid = visual.grid;
  patches->rows.resize(static_cast<size_t>(visual.grid.num_patches()) * kPatchDim);
  for (size_t i = 0; i < patches->rows.size(); ++i) {
    const int mixed = static_cast<int>((i * 31 + source.sha256[i % 32] * 7) % 255);
    patches->rows[i] = static_cast<float>(mixed) / 127.5f - 1.0f;
  }
  visual.patches = std::move(patches);
  visual.report.frames_decoded = static_cast<int64_t>(visual.report.frame_times.size());
  visual.decode_time = absl::Milliseconds(1);
}

// Hands the patches over one temporal patch at a time.
absl::Status HandOver(LoadedVisual& visual, const LoadControl& control) {
  const std::shared_ptr<const PatchBatch> whole = std::exchange(visual.patches, nullptr);
  const auto per_t = static_cast<std::ptrdiff_t>(visual.grid.h) * visual.grid.w * kPatchDim;
  for (int t = 0; t < visual.grid.t; ++t) {
    auto piece = std::make_shared<PatchBatch>();
    piece->grid = {1, visual.grid.h, visual.grid.w};
    piece->rows.assign(whole->rows.begin() + t * per_t, whole->rows.begin() + (t + 1) * per_t);
    if (absl::Status taken = control.take_piece({visual.grid, t, std::move(piece)}); !taken.ok()) {
      return taken;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckControl(const LoadControl& control) {
  if (control.cancelled != nullptr && control.cancelled->load()) {
    return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "load cancelled");
  }
  return absl::OkStatus();
}

}  // namespace

MediaSource FakeSource(const std::string& name) {
  MediaSource source;
  source.path = name;
  source.sha256 = Sha256Of(name);
  return source;
}

absl::StatusOr<LoadedVisual> FakeMediaLoader::LoadVideo(const MediaSource& source,
                                                        const VideoSampling& sampling,
                                                        const LoadControl& control) {
  ++loads_;
  if (on_load) on_load();
  if (absl::Status status = CheckControl(control); !status.ok()) return status;
  absl::StatusOr<LoadedVisual> visual = PlanVideo(source, sampling);
  if (!visual.ok()) return visual;
  if (control.progress) control.progress("decode", 1, sampling.num_frames.value_or(4));
  FillPatches(source, *visual);
  if (control.take_piece) {
    if (absl::Status status = HandOver(*visual, control); !status.ok()) return status;
    if (source.path == "dies") {
      return MakeError(absl::StatusCode::kUnavailable, "DECODER_DIED", "the decoder died");
    }
  }
  return visual;
}

absl::StatusOr<LoadedVisual> FakeMediaLoader::LoadImage(const ImagePart& image,
                                                        const LoadControl& control) {
  ++loads_;
  if (on_load) on_load();
  if (absl::Status status = CheckControl(control); !status.ok()) return status;
  absl::StatusOr<LoadedVisual> visual = PlanImage(image);
  if (visual.ok()) FillPatches(image.source, *visual);
  return visual;
}

absl::StatusOr<LoadedVisual> FakeMediaLoader::PlanVideo(const MediaSource& source,
                                                        const VideoSampling& sampling) {
  return Shape(source, sampling.num_frames.value_or(4), /*image=*/false);
}

absl::StatusOr<LoadedVisual> FakeMediaLoader::PlanImage(const ImagePart& image) {
  return Shape(image.source, 1, /*image=*/true);
}

absl::StatusOr<MediaFacts> FakeMediaLoader::Probe(const MediaSource& source) {
  if (source.path == "bad") {
    return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_CORRUPT", "the clip is corrupt");
  }
  MediaFacts facts;
  facts.width = facts.height = 56;
  return facts;
}

}  // namespace videonsa
