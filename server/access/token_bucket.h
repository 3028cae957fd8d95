#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace videonsa {

/// A limit per minute: holds at most a minute's worth and fills evenly. Takes may overdraw it, as
/// the size of some work is known only afterwards; then it refuses until it is above zero again.
///
/// Threads: one at a time.
class TokenBucket {
 public:
  /// `per_minute` 0: no limit. A change of the limit keeps what has been used.
  void SetLimit(int64_t per_minute, absl::Duration now) {
    if (per_minute == per_minute_) return;
    Fill(now);
    level_ += static_cast<double>(per_minute - per_minute_);
    per_minute_ = per_minute;
    level_ = std::min(level_, static_cast<double>(per_minute));
  }

  /// Time until `count` more are there; zero if they are, infinite if they never will be.
  absl::Duration WaitFor(double count, absl::Duration now) {
    if (per_minute_ == 0) return absl::ZeroDuration();
    Fill(now);
    const double missing = count - level_;
    if (missing <= 0) return absl::ZeroDuration();
    if (count > static_cast<double>(per_minute_)) return absl::InfiniteDuration();
    return absl::Seconds(60 * missing / static_cast<double>(per_minute_));
  }

  void Take(double count, absl::Duration now) {
    if (per_minute_ == 0) return;
    Fill(now);
    level_ -= count;
  }

 private:
  void Fill(absl::Duration now) {
    const double minutes = absl::FDivDuration(now - filled_, absl::Minutes(1));
    filled_ = now;
    level_ = std::min(level_ + minutes * static_cast<double>(per_minute_),
                      static_cast<double>(per_minute_));
  }

  int64_t per_minute_ = 0;
  double level_ = 0;
  absl::Duration filled_;
};

}  // namespace videonsa
