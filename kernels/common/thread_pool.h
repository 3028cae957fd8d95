#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace videonsa {

/// A fixed group of threads that run loops together; the caller is one of them.
///
/// One pool per worker serves every kernel and GEMM, so that nothing oversubscribes the cores.
/// Workers spin briefly between loops of one step and then sleep.
///
/// Threads: one caller at a time.
class ThreadPool {
 public:
  /// Starts `num_threads - 1` threads. Requires: num_threads >= 1.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  /// Calls body(task, thread) once for each task in [0, num_tasks), tasks handed out one by one;
  /// thread in [0, num_threads). Returns when all are done; what the bodies wrote is then visible.
  /// Does not allocate. The body must not call the pool.
  void ParallelFor(int64_t num_tasks, const std::function<void(int64_t task, int thread)>& body);

 private:
  struct State;
  const int num_threads_;
  std::unique_ptr<State> state_;
};

}  // namespace videonsa
