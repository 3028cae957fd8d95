#pragma once

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runtime/serving/runtime.h"
#include "server/clip_store/clip_store.h"

namespace videonsa {

/// Takes clips from PROBING to READY or FAILED, a few at a time. The queue holds ids only and is
/// bounded by the number of clips the store admits.
///
/// Threads: its own; the destructor joins them, leaving what is queued in PROBING for the next
///          start.
class ClipProber {
 public:
  /// Requires: both outlive the prober.
  ClipProber(ClipStore& clips, Runtime& runtime);
  ~ClipProber();

 private:
  struct Task {
    std::string id;
    int attempts = 0;
  };
  void Run();
  void Probe(Task task);
  void Add(Task task);
  bool HasWorkOrStops() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !tasks_.empty();
  }

  ClipStore& clips_;
  Runtime& runtime_;
  absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace videonsa
