#include "client/bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace videonsa::client {
namespace {

// 1024 buckets for every power of two from 2048 on: width at most 1/1024 of the value.
constexpr int kSubBits = 10;
constexpr int64_t kSub = 1 << kSubBits;
constexpr int64_t kMaxUs = int64_t{1} << 50;

size_t IndexOf(int64_t us) {
  const int width = std::bit_width(static_cast<uint64_t>(us));
  const int shift = std::max(0, width - (kSubBits + 1));
  return static_cast<size_t>(shift * kSub + (us >> shift));
}

double MiddleOf(size_t index) {
  const int64_t i = static_cast<int64_t>(index);
  if (i < 2 * kSub) return static_cast<double>(i);
  const int64_t shift = i / kSub - 1;
  const int64_t low = (i - shift * kSub) << shift;
  return static_cast<double>(low) + static_cast<double>((int64_t{1} << shift) - 1) / 2;
}

}  // namespace

void Histogram::Record(double seconds) {
  const double clamped = std::clamp(seconds * 1e6, 0.0, static_cast<double>(kMaxUs));
  const int64_t us = std::llround(clamped);
  const size_t index = IndexOf(us);
  if (index >= counts_.size()) counts_.resize(index + 1);
  ++counts_[index];
  min_us_ = count_ == 0 ? us : std::min(min_us_, us);
  max_us_ = std::max(max_us_, us);
  ++count_;
  sum_ += seconds;
  sum_of_squares_ += seconds * seconds;
}

void Histogram::Merge(const Histogram& other) {
  if (other.count_ == 0) return;
  counts_.resize(std::max(counts_.size(), other.counts_.size()));
  for (size_t i = 0; i < other.counts_.size(); ++i) counts_[i] += other.counts_[i];
  min_us_ = count_ == 0 ? other.min_us_ : std::min(min_us_, other.min_us_);
  max_us_ = std::max(max_us_, other.max_us_);
  count_ += other.count_;
  sum_ += other.sum_;
  sum_of_squares_ += other.sum_of_squares_;
}

double Histogram::mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

double Histogram::deviation() const {
  if (count_ == 0) return 0;
  const double variance = sum_of_squares_ / static_cast<double>(count_) - mean() * mean();
  return std::sqrt(std::max(variance, 0.0));
}

double Histogram::min() const { return static_cast<double>(min_us_) * 1e-6; }

double Histogram::max() const { return static_cast<double>(max_us_) * 1e-6; }

double Histogram::Percentile(double p) const {
  if (count_ == 0) return 0;
  const int64_t rank = std::clamp<int64_t>(
      static_cast<int64_t>(std::ceil(p * static_cast<double>(count_) - 1e-9)), 1, count_);
  if (rank == count_) return max();
  int64_t seen = 0;
  size_t index = 0;
  while (index < counts_.size() && (seen += counts_[index]) < rank) ++index;
  return std::clamp(MiddleOf(index) * 1e-6, min(), max());
}

std::vector<Histogram::Bucket> Histogram::Buckets() const {
  std::vector<Bucket> buckets;
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] > 0) buckets.push_back({MiddleOf(i) * 1e-6, counts_[i]});
  }
  return buckets;
}

}  // namespace videonsa::client
