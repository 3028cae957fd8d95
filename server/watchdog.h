#pragma once

#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace videonsa {

/// Something with a time limit that no other event enforces.
class Watched {
 public:
  virtual ~Watched() = default;
  /// Ends itself if its time is over. `now` is monotonic. Threads: the watchdog's.
  virtual void Check(absl::Duration now) = 0;
};

/// Looks at open calls now and then. Threads: any.
class Watchdog {
 public:
  void Add(std::weak_ptr<Watched> watched) {
    absl::MutexLock lock(&mutex_);
    watched_.push_back(std::move(watched));
  }

  /// Checks all that still live, without the lock held.
  void Tick(absl::Duration now) {
    std::vector<std::shared_ptr<Watched>> alive;
    {
      absl::MutexLock lock(&mutex_);
      std::vector<std::weak_ptr<Watched>> keep;
      for (const std::weak_ptr<Watched>& weak : watched_) {
        if (std::shared_ptr<Watched> watched = weak.lock()) {
          alive.push_back(std::move(watched));
          keep.push_back(weak);
        }
      }
      watched_.swap(keep);
    }
    for (const std::shared_ptr<Watched>& watched : alive) watched->Check(now);
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::weak_ptr<Watched>> watched_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace videonsa
