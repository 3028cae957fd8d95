#pragma once

#include <functional>
#include <map>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace videonsa::client {

/// Calls functions later, from one thread of its own.
///
/// Lifetime: the destructor runs what is left at once, then joins. Functions must be short.
/// Threads: any.
class Timer {
 public:
  Timer();
  ~Timer();
  void After(absl::Duration delay, std::function<void()> call);

 private:
  void Loop();

  absl::Mutex mutex_;
  std::multimap<absl::Time, std::function<void()>> calls_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace videonsa::client
