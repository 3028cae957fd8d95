#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "runtime/base/bounded_queue.h"

namespace videonsa {

/// A few threads for work that gRPC's own threads must not wait for: disk and probing.
///
/// When the queue is full or the pool has stopped, TrySubmit refuses; the caller answers
/// UNAVAILABLE.
///
/// Threads: TrySubmit from any thread; Stop and the destructor from one that is no worker.
class WorkerPool {
 public:
  WorkerPool(int threads, size_t queue_capacity);
  ~WorkerPool() { Stop(); }

  /// Runs `work` on a worker, later; returns false if the queue is full.
  bool TrySubmit(std::function<void()> work);

  /// Runs what is queued and joins the workers. Idempotent.
  void Stop();

 private:
  BoundedQueue<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
};

}  // namespace videonsa
