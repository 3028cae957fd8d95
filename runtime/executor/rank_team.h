#pragma once

#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace videonsa {

/// Threads that do one thing together, one a rank; rank 0 is the caller. Unlike a ThreadPool it
/// gives every rank the same thread each time, and all run at once: they may wait for each other.
///
/// Threads: one caller at a time.
class RankTeam {
 public:
  /// Starts num_ranks - 1 threads. Requires: num_ranks >= 1.
  explicit RankTeam(int num_ranks);
  ~RankTeam();
  RankTeam(const RankTeam&) = delete;
  RankTeam& operator=(const RankTeam&) = delete;

  int num_ranks() const { return num_ranks_; }
  /// Calls body(rank) on every rank's thread and returns when all have returned; what they wrote is
  /// then visible. Does not allocate.
  void Run(absl::FunctionRef<void(int rank)> body);

 private:
  void Loop(int rank);

  const int num_ranks_;
  absl::Mutex mutex_;
  const absl::FunctionRef<void(int)>* body_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace videonsa
