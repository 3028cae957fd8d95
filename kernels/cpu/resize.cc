#include "kernels/cpu/resize.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/resize.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Vec16 = hn::CappedTag<float, 16>;
using Vec4 = hn::CappedTag<float, 4>;  // one lane without SIMD: loops below go on to four

// acc = sum of w[j] * x(j) in PyTorch's order. This file is compiled without contraction, so that
// the unfused part stays unfused.
template <class D, class Load>
HWY_INLINE hn::Vec<D> WeightedSum(D d, const float* HWY_RESTRICT w, int count, Load load) {
  auto acc = hn::Mul(load(0), hn::Set(d, w[0]));
  const int unfused = 1 + (count - 1) / 4 * 4;
  int j = 1;
  for (; j < unfused; ++j) {
    acc = hn::Add(acc, hn::Mul(load(j), hn::Set(d, w[j])));
  }
  for (; j < count; ++j) acc = hn::MulAdd(load(j), hn::Set(d, w[j]), acc);
  return acc;
}

HWY_INLINE void CopyPixel(const float* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  const Vec4 d;
  for (size_t i = 0; i < 4; i += hn::Lanes(d)) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
}

// Puts `rows` rows side by side, pixel by pixel: [width, rows, 4].
HWY_INLINE void PackRows(const uint8_t* rgb, const float* rgbx, int width, size_t rows,
                         float* HWY_RESTRICT packed) {
  for (size_t r = 0; r < rows; ++r) {
    float* HWY_RESTRICT to = packed + 4 * r;
    if (rgb) {
      const uint8_t* HWY_RESTRICT from = rgb + size_t{3} * width * r;
      for (int x = 0; x < width; ++x, from += 3, to += 4 * rows) {
        to[0] = from[0];
        to[1] = from[1];
        to[2] = from[2];
        to[3] = 0;
      }
    } else {
      const float* HWY_RESTRICT from = rgbx + size_t{4} * width * r;
      for (int x = 0; x < width; ++x, from += 4, to += 4 * rows) CopyPixel(from, to);
    }
  }
}

// The width pass over `rows` input rows, side by side.
template <class D>
HWY_INLINE void WidthPass(D d, const ResizeAxis& axis, const float* HWY_RESTRICT packed,
                          size_t rows, float* HWY_RESTRICT out) {
  HWY_ALIGN float pixels[16];  // of `rows` rows
  for (int x = 0; x < axis.out; ++x) {
    const float* HWY_RESTRICT from = packed + 4 * rows * axis.first[x];
    const float* HWY_RESTRICT w = axis.weights.data() + size_t(axis.max_count) * x;
    for (size_t i = 0; i < 4 * rows; i += hn::Lanes(d)) {
      const auto sum = WeightedSum(d, w, axis.count[x],
                                   [&](int j) { return hn::LoadU(d, from + 4 * rows * j + i); });
      hn::StoreU(sum, d, pixels + i);
    }
    for (size_t r = 0; r < rows; ++r) {
      CopyPixel(pixels + 4 * r, out + size_t{4} * (axis.out * r + x));
    }
  }
}

template <class D>
HWY_INLINE hn::Vec<D> RoundedByte(D d, hn::Vec<D> value) {
  return hn::Round(hn::Clamp(value, hn::Zero(d), hn::Set(d, 255.0f)));
}

void ResizeWidth(const ResizeAxis& axis, int height, const uint8_t* rgb, const float* rgbx,
                 float* packed, float* out) {
  const Vec16 d;
  const Vec4 d4;
  const size_t group = std::max<size_t>(hn::Lanes(d) / 4, 1);
  for (size_t y = 0; y < static_cast<size_t>(height);) {
    const size_t rows = y + group <= static_cast<size_t>(height) ? group : 1;
    PackRows(rgb ? rgb + size_t{3} * axis.in * y : nullptr,
             rgbx ? rgbx + size_t{4} * axis.in * y : nullptr, axis.in, rows, packed);
    float* target = out + size_t{4} * axis.out * y;
    if (rows == group) {
      WidthPass(d, axis, packed, rows, target);
    } else {
      WidthPass(d4, axis, packed, rows, target);
    }
    y += rows;
  }
}

void ResizeHeight(const ResizeAxis& axis, int width, const float* HWY_RESTRICT in, bool round,
                  float* HWY_RESTRICT out) {
  const Vec16 d;
  const size_t row = size_t{4} * width;
  const size_t lanes = hn::Lanes(d);
  for (int y = 0; y < axis.out; ++y) {
    const float* from = in + row * axis.first[y];
    const float* w = axis.weights.data() + size_t(axis.max_count) * y;
    float* to = out + row * y;
    size_t x = 0;
    for (; x + lanes <= row; x += lanes) {
      auto sum =
          WeightedSum(d, w, axis.count[y], [&](int j) { return hn::LoadU(d, from + row * j + x); });
      if (round) sum = RoundedByte(d, sum);
      hn::StoreU(sum, d, to + x);
    }
    const Vec4 d4;
    for (; x < row; x += hn::Lanes(d4)) {
      auto sum = WeightedSum(d4, w, axis.count[y],
                             [&](int j) { return hn::LoadU(d4, from + row * j + x); });
      if (round) sum = RoundedByte(d4, sum);
      hn::StoreU(sum, d4, to + x);
    }
  }
}

void RoundAll(float* values, size_t count) {
  const Vec4 d4;
  for (size_t i = 0; i < count; i += hn::Lanes(d4)) {
    hn::StoreU(RoundedByte(d4, hn::LoadU(d4, values + i)), d4, values + i);
  }
}

void Widen(const uint8_t* rgb, size_t pixels, float* out) {
  PackRows(rgb, nullptr, static_cast<int>(pixels), 1, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
namespace {

HWY_EXPORT(ResizeWidth);
HWY_EXPORT(ResizeHeight);
HWY_EXPORT(RoundAll);
HWY_EXPORT(Widen);

constexpr float kA = -0.5f;

// The cubic kernel, fused as PyTorch's build is.
float Cubic(float x) {
  x = std::fabs(x);
  if (x < 1) return std::fma(std::fma(kA + 2, x, -(kA + 3)) * x, x, 1.0f);
  if (x < 2) return std::fma(std::fma(std::fma(kA, x, -5 * kA), x, 8 * kA), x, -4 * kA);
  return 0;
}

}  // namespace

ResizeAxis MakeBicubicAxis(int in, int out) {
  ResizeAxis axis{.in = in, .out = out};
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  const float support = scale >= 1 ? 2 * scale : 2;
  const float inverse = scale >= 1 ? 1 / scale : 1;
  axis.max_count = static_cast<int>(std::ceil(support)) * 2 + 1;
  axis.weights.assign(size_t(axis.max_count) * out, 0);
  for (int i = 0; i < out; ++i) {
    const auto centre = static_cast<float>(static_cast<double>(scale) * (i + 0.5));
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int end = std::min(static_cast<int>(centre + support + 0.5), in);
    float* weights = axis.weights.data() + size_t(axis.max_count) * i;
    float sum = 0;
    for (int j = first; j < end; ++j) {
      const double offset = static_cast<float>(j) - centre;
      weights[j - first] = Cubic(static_cast<float>((offset + 0.5) * inverse));
      sum += weights[j - first];
    }
    for (int j = first; j < end; ++j) weights[j - first] /= sum;
    axis.first.push_back(first);
    axis.count.push_back(end - first);
  }
  return axis;
}

BicubicResizer::BicubicResizer(int in_height, int in_width, int out_height, int out_width)
    : x_(MakeBicubicAxis(in_width, out_width)), y_(MakeBicubicAxis(in_height, out_height)) {
  packed_.resize(size_t{16} * in_width + 16);
}

void BicubicResizer::ResizeRounded(const uint8_t* rgb, RgbxImage* out) {
  Run(rgb, nullptr, /*round=*/true, out);
}

void BicubicResizer::Resize(const RgbxImage& in, RgbxImage* out) {
  Run(nullptr, in.values.data(), /*round=*/false, out);
}

void BicubicResizer::Run(const uint8_t* rgb, const float* rgbx, bool round, RgbxImage* out) {
  out->Resize(y_.out, x_.out);
  RgbxImage* wide = y_.identity() ? out : &wide_;
  wide->Resize(y_.in, x_.out);
  if (!x_.identity()) {
    HWY_DYNAMIC_DISPATCH(ResizeWidth)
    (x_, y_.in, rgb, rgbx, packed_.data(), wide->values.data());
  } else if (rgb) {
    HWY_DYNAMIC_DISPATCH(Widen)(rgb, size_t(y_.in) * x_.in, wide->values.data());
  } else {
    std::copy_n(rgbx, size_t{4} * y_.in * x_.in, wide->values.data());
  }
  if (!y_.identity()) {
    HWY_DYNAMIC_DISPATCH(ResizeHeight)
    (y_, x_.out, wide->values.data(), round, out->values.data());
  } else if (round) {
    HWY_DYNAMIC_DISPATCH(RoundAll)(out->values.data(), out->values.size());
  }
}

}  // namespace videonsa
#endif  // HWY_ONCE
