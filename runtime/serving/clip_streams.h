#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "runtime/api/generate_request.h"
#include "runtime/base/bounded_queue.h"
#include "runtime/serving/visual_store.h"
#include "runtime/step/patch_stream.h"

namespace videonsa {

/// Threads that decode long clips while the vision tower takes their patches, and clips and
/// pictures of a sequence that comes back after a preemption.
///
/// A clip is decoded from the moment its sequence is admitted and its executor wants the rows
/// (PatchSource::Begin), so a thread here waits for nothing but a decoder process and the steps of
/// an admitted sequence. Clips of one request are decoded one after the other, in the order in
/// which their rows are taken.
class ClipStreams {
 public:
  struct Options {
    int threads = 1;
    int max_requests = 1;  ///< that may be open at once, every stay of a sequence counted
    int64_t buffer_bytes = int64_t{32} << 20;  ///< of pieces that wait for the vision tower, a clip
  };
  /// `store` outlives the threads. `changed` is called, from any thread, when a stream of the
  /// request has news for the engine.
  ClipStreams(const Options& options, VisualStore* store, std::function<void(RequestId)> changed);
  /// Stops. The object must outlive every PatchStream that it made.
  ~ClipStreams();

  /// What is to be decoded for one request.
  struct Clips {
    RequestId id;
    std::string tenant;
    std::shared_ptr<const std::atomic<bool>> cancelled;
    absl::Duration deadline = absl::InfiniteDuration();
    std::vector<std::variant<VideoPart, ImagePart>> parts;
    std::vector<PatchGrid> grids;  ///< one a part, as planned
  };
  /// One stream a clip. Nothing is decoded before the first of them begins.
  std::vector<std::shared_ptr<PatchStream>> Open(Clips clips);

  /// Joins the threads. Requires: every stream is closed or its clip decoded. Idempotent.
  void Stop();

 private:
  struct Job {
    Clips clips;
    // Streams belong to their sequence: what it has dropped need not be decoded.
    std::vector<std::weak_ptr<PatchStream>> streams;
    std::atomic<bool> queued{false};
  };

  void Loop();
  void Decode(const Job& job, size_t clip);
  absl::StatusOr<LoadedVisual> Load(const Clips& clips, size_t clip, PatchStream& stream);

  const Options options_;
  VisualStore* const store_;
  const std::function<void(RequestId)> changed_;
  BoundedQueue<std::shared_ptr<const Job>> queue_;
  std::vector<std::thread> threads_;
};

}  // namespace videonsa
