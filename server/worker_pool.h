#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "runtime/base/bounded_queue.h"

namespace videonsa {

/// A few threads for work that gRPC's own threads must not wait for: disk and probing.
///
/// When the queue is full, TrySubmit refuses; the caller answers UNAVAILABLE.
///
/// Threads: all methods may be called from any thread but a worker; the destructor runs what is
///          queued and joins.
class WorkerPool {
 public:
  WorkerPool(int threads, size_t queue_capacity);
  ~WorkerPool();

  /// Runs `work` on a worker, later; returns false if the queue is full.
  bool TrySubmit(std::function<void()> work);

 private:
  BoundedQueue<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
};

}  // namespace videonsa
