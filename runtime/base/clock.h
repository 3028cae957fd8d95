#pragma once

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace videonsa {

/// Source of time, passed explicitly so that tests decide what time it is.
///
/// Threads: all methods may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Wall-clock time; may jump. For what people and files see.
  virtual absl::Time Now() const = 0;
  /// Monotonic time since an arbitrary start. For durations and deadlines.
  virtual absl::Duration Monotonic() const = 0;

  /// The machine's clock; lives for ever.
  static const Clock& Real();
};

/// A clock that stands still until a test moves it.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::UnixEpoch()) : now_(start) {}
  absl::Time Now() const override {
    absl::MutexLock lock(&mutex_);
    return now_;
  }
  absl::Duration Monotonic() const override {
    absl::MutexLock lock(&mutex_);
    return elapsed_;
  }
  void Advance(absl::Duration step) {
    absl::MutexLock lock(&mutex_);
    now_ += step;
    elapsed_ += step;
  }
  /// Moves the wall clock only, as an administrator would.
  void JumpWallClock(absl::Duration step) {
    absl::MutexLock lock(&mutex_);
    now_ += step;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
  absl::Duration elapsed_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
};

}  // namespace videonsa
