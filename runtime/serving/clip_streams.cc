#include "runtime/serving/clip_streams.h"

#include <optional>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace videonsa {

ClipStreams::ClipStreams(const Options& options, VisualStore* store,
                         std::function<void(RequestId)> changed)
    : options_(options),
      store_(store),
      changed_(std::move(changed)),
      queue_(static_cast<size_t>(options.max_requests)) {
  for (int i = 0; i < options.threads; ++i) threads_.emplace_back([this] { Loop(); });
}

ClipStreams::~ClipStreams() { Stop(); }

void ClipStreams::Stop() {
  queue_.Close();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

std::vector<std::shared_ptr<PatchStream>> ClipStreams::Open(Clips clips) {
  VNSA_CHECK_EQ(clips.parts.size(), clips.grids.size());
  const RequestId id = clips.id;
  auto job = std::make_shared<Job>();
  job->clips = std::move(clips);
  std::vector<std::shared_ptr<PatchStream>> streams;
  for (const PatchGrid& grid : job->clips.grids) {
    PatchStream::Hooks hooks;
    hooks.begin = [this, job] {
      if (job->queued.exchange(true)) return;
      VNSA_CHECK(queue_.TryPush(std::shared_ptr<const Job>(job)) || queue_.closed())
          << "I12: stream queue overflow";
    };
    hooks.changed = [this, id] { changed_(id); };
    streams.push_back(std::make_shared<PatchStream>(grid, options_.buffer_bytes, std::move(hooks)));
  }
  for (const auto& stream : streams) job->streams.emplace_back(stream);
  return streams;
}

void ClipStreams::Loop() {
  while (std::optional<std::shared_ptr<const Job>> job = queue_.Pop()) {
    for (size_t clip = 0; clip < (*job)->streams.size(); ++clip) Decode(**job, clip);
  }
}

void ClipStreams::Decode(const Job& job, size_t clip) {
  const std::shared_ptr<PatchStream> stream = job.streams[clip].lock();
  if (stream == nullptr || stream->closed()) return;
  const absl::StatusOr<LoadedVisual> loaded = Load(job.clips, clip, *stream);
  if (loaded.ok()) {
    stream->SetCosts(loaded->report.frames_decoded, loaded->decode_time, loaded->preprocess_time);
  }
  stream->Finish(loaded.status());
}

absl::StatusOr<LoadedVisual> ClipStreams::Load(const Clips& clips, size_t clip,
                                               PatchStream& stream) {
  LoadControl control;
  control.cancelled = clips.cancelled;
  control.deadline = clips.deadline;
  if (const auto* image = std::get_if<ImagePart>(&clips.parts[clip])) {
    VNSA_ASSIGN_OR_RETURN(VisualStore::Loaded loaded, store_->Load(clips.tenant, *image, control));
    VNSA_RETURN_IF_ERROR(stream.Push(loaded.visual.grid, 0, loaded.visual.patches));
    return std::move(loaded.visual);
  }
  control.take_piece = [&stream](PatchPiece piece) {
    return stream.Push(piece.whole, piece.t_begin, std::move(piece.patches));
  };
  return store_->Stream(std::get<VideoPart>(clips.parts[clip]), control);
}

}  // namespace videonsa
