#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace videonsa::sim {

/// Percentiles of durations between 10 us and 3 hours to 2 %, in constant memory.
class LogHistogram {
 public:
  void Record(double seconds) {
    ++count_;
    max_ = std::max(max_, seconds);
    const double at = std::log(std::max(seconds, kLeast) / kLeast) * kPerE;
    ++counts_[std::min(static_cast<size_t>(at), counts_.size() - 1)];
  }
  int64_t count() const { return count_; }
  double max() const { return max_; }
  /// Requires: 0 < p <= 1. 0 if nothing was recorded.
  double Percentile(double p) const {
    int64_t left = static_cast<int64_t>(std::ceil(p * static_cast<double>(count_)));
    for (size_t i = 0; i < counts_.size() && count_ > 0; ++i) {
      left -= counts_[i];
      if (left <= 0) return std::min(max_, kLeast * std::exp((static_cast<double>(i) + 1) / kPerE));
    }
    return 0;
  }

 private:
  static constexpr double kLeast = 1e-5;
  static constexpr double kPerE = 50;  // buckets a factor of e
  std::array<int64_t, 1050> counts_{};
  int64_t count_ = 0;
  double max_ = 0;
};

}  // namespace videonsa::sim
