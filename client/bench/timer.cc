#include "client/bench/timer.h"

#include <utility>

#include "absl/time/clock.h"

namespace videonsa::client {

Timer::Timer() : thread_([this] { Loop(); }) {}

Timer::~Timer() {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  thread_.join();
}

void Timer::After(absl::Duration delay, std::function<void()> call) {
  absl::MutexLock lock(&mutex_);
  calls_.emplace(absl::Now() + delay, std::move(call));
}

void Timer::Loop() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    const absl::Time due = calls_.empty() ? absl::InfiniteFuture() : calls_.begin()->first;
    if (!closed_ && absl::Now() < due) {
      struct State {
        Timer* timer;
        absl::Time due;
      } state{this, due};
      // Woken when something earlier is put in front, at closing, or when the time has come.
      mutex_.AwaitWithDeadline(
          absl::Condition(
              +[](State* s) {
                s->timer->mutex_.AssertHeld();
                return s->timer->closed_ ||
                       (!s->timer->calls_.empty() && s->timer->calls_.begin()->first < s->due);
              },
              &state),
          due);
      continue;
    }
    if (calls_.empty()) return;
    const std::function<void()> call = std::move(calls_.begin()->second);
    calls_.erase(calls_.begin());
    mutex_.Unlock();
    call();
    mutex_.Lock();
  }
}

}  // namespace videonsa::client
