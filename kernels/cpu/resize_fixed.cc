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

std::vector<uint8_t> ResizeWidth(const std::vector<uint8_t>& in, int height,
                                 const FixedAxis& axis) {
  const size_t in_row = size_t{3} * axis.in, out_row = size_t{3} * axis.out;
  std::vector<uint8_t> out(out_row * height);
  for (int y = 0; y < height; ++y) {
    for (size_t i = 0; i < out_row; ++i) {
      const size_t x = i / 3;
      const uint8_t* from = in.data() + in_row * y + size_t{3} * axis.first[x] + i % 3;
      out[out_row * y + i] = Sum(from, 3, axis.weights[x].data(), axis.count[x], axis.bits);
    }
  }
  return out;
}

std::vector<uint8_t> ResizeHeight(const std::vector<uint8_t>& in, int width,
                                  const FixedAxis& axis) {
  const size_t row = size_t{3} * width;
  std::vector<uint8_t> out(row * axis.out);
  for (int y = 0; y < axis.out; ++y) {
    const uint8_t* from = in.data() + row * axis.first[y];
    for (size_t i = 0; i < row; ++i) {
      out[row * y + i] = Sum(from + i, row, axis.weights[y].data(), axis.count[y], axis.bits);
    }
  }
  return out;
}

}  // namespace

std::vector<uint8_t> ResizeFixedPoint(const uint8_t* rgb, int in_height, int in_width,
                                      int out_height, int out_width, FixedPointRules rules) {
  std::vector<uint8_t> out(rgb, rgb + size_t{3} * in_width * in_height);
  // Pillow starts with the height where that takes away clearly more lines.
  const bool height_first = rules == FixedPointRules::kPillow && out_height < in_height &&
                            in_height - out_height > 2 * (in_width - out_width);
  if (height_first) out = ResizeHeight(out, in_width, MakeAxis(in_height, out_height, rules));
  const int height = height_first ? out_height : in_height;
  if (in_width != out_width) out = ResizeWidth(out, height, MakeAxis(in_width, out_width, rules));
  if (height != out_height) out = ResizeHeight(out, out_width, MakeAxis(height, out_height, rules));
  return out;
}

}  // namespace videonsa
