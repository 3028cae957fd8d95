#include <algorithm>
#include <cmath>

#include "kernels/cpu/resize.h"

namespace videonsa {
namespace {

constexpr double kA = -0.5;
constexpr int kMaxBits = 22;
constexpr int kInt16Limit = 1 << 15;

double Cubic(double x) {
  x = std::fabs(x);
  if (x < 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0;
}

// Windows of one axis in double, then in fixed point.
struct FixedAxis {
  int in, out, bits = kMaxBits;
  std::vector<int> first, count;
  std::vector<std::vector<int32_t>> weights;
};

FixedAxis MakeAxis(int in, int out, FixedPointRules rules) {
  FixedAxis axis{in, out};
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(scale, 1.0);
  const double support = 2 * stretch, inverse = 1 / stretch;
  std::vector<std::vector<double>> exact;
  double largest = 0;
  for (int i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int end = std::min(static_cast<int>(centre + support + 0.5), in);
    std::vector<double> weights;
    double sum = 0;
    for (int j = first; j < end; ++j) {
      weights.push_back(Cubic((j - centre + 0.5) * inverse));
      sum += weights.back();
    }
    for (double& weight : weights) {
      if (sum != 0) weight *= 1 / sum;
      largest = std::max(largest, weight);
    }
    axis.first.push_back(first);
    axis.count.push_back(end - first);
    exact.push_back(std::move(weights));
  }
  if (rules == FixedPointRules::kTorchUint8) {
    axis.bits = 0;
    while (axis.bits < kMaxBits &&
           static_cast<int64_t>(0.5 + largest * (int64_t{1} << (axis.bits + 1))) < kInt16Limit) {
      ++axis.bits;
    }
  }
  const double one = static_cast<double>(int64_t{1} << axis.bits);
  for (const auto& weights : exact) {
    auto& fixed = axis.weights.emplace_back();
    for (double weight : weights) {
      fixed.push_back(static_cast<int32_t>(weight * one + (weight < 0 ? -0.5 : 0.5)));
    }
  }
  return axis;
}

// Sums `count` samples `stride` apart.
uint8_t Sum(const uint8_t* in, size_t stride, const int32_t* weights, int count, int bits) {
  int32_t sum = 1 << (bits - 1);
  for (int j = 0; j < count; ++j) sum += in[stride * j] * weights[j];
  return static_cast<uint8_t>(std::clamp(sum >> bits, 0, 255));
}

}  // namespace

std::vector<uint8_t> ResizeFixedPoint(const uint8_t* rgb, int in_height, int in_width,
                                      int out_height, int out_width, FixedPointRules rules) {
  const size_t in_row = size_t{3} * in_width, out_row = size_t{3} * out_width;
  std::vector<uint8_t> wide(rgb, rgb + in_row * in_height);
  if (in_width != out_width) {
    const FixedAxis axis = MakeAxis(in_width, out_width, rules);
    wide.assign(out_row * in_height, 0);
    for (int y = 0; y < in_height; ++y) {
      for (size_t i = 0; i < out_row; ++i) {
        const size_t x = i / 3;
        const uint8_t* from = rgb + in_row * y + size_t{3} * axis.first[x] + i % 3;
        wide[out_row * y + i] = Sum(from, 3, axis.weights[x].data(), axis.count[x], axis.bits);
      }
    }
  }
  if (in_height == out_height) return wide;
  const FixedAxis axis = MakeAxis(in_height, out_height, rules);
  std::vector<uint8_t> out(out_row * out_height);
  for (int y = 0; y < out_height; ++y) {
    const uint8_t* from = wide.data() + out_row * axis.first[y];
    for (size_t i = 0; i < out_row; ++i) {
      out[out_row * y + i] =
          Sum(from + i, out_row, axis.weights[y].data(), axis.count[y], axis.bits);
    }
  }
  return out;
}

}  // namespace videonsa
