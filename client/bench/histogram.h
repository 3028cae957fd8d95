#pragma once

#include <cstdint>
#include <vector>

namespace videonsa::client {

/// Percentiles of durations in constant memory: log-linear buckets of three significant digits.
///
/// Units: seconds in and out; kept as whole microseconds, values below 0 count as 0.
/// Threads: one at a time.
class Histogram {
 public:
  void Record(double seconds);
  void Merge(const Histogram& other);

  int64_t count() const { return count_; }
  double mean() const;
  /// Standard deviation of the population.
  double deviation() const;
  double min() const;
  double max() const;
  /// Smallest recorded value that at least a share `p` of all values does not exceed, to three
  /// digits; exact at the ends. 0 if empty. Requires: 0 <= p <= 1.
  double Percentile(double p) const;

  /// One bucket's middle and count, empty ones left out, in order.
  struct Bucket {
    double seconds;
    int64_t count;
  };
  std::vector<Bucket> Buckets() const;

 private:
  std::vector<int64_t> counts_;
  int64_t count_ = 0;
  double sum_ = 0;
  double sum_of_squares_ = 0;
  int64_t min_us_ = 0;
  int64_t max_us_ = 0;
};

}  // namespace videonsa::client
