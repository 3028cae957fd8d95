// Vectors of activations: partial loads and stores in F32 or BF16, activation functions. Included
// once per target.

#if defined(VIDEONSA_KERNELS_CPU_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VIDEONSA_KERNELS_CPU_ROWS_INL_H_
#undef VIDEONSA_KERNELS_CPU_ROWS_INL_H_
#else
#define VIDEONSA_KERNELS_CPU_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using RowTag = hn::CappedTag<float, 16>;
using RowVec = hn::Vec<RowTag>;

// Address of element `offset` of a buffer of `dtype`.
HWY_INLINE void* RowOf(void* data, DType dtype, int64_t offset) {
  return static_cast<char*>(data) + offset * static_cast<int64_t>(SizeOf(dtype));
}

// The first `count` lanes, the others zero. Copied, for on targets without masked loads (SSE4)
// MaskedLoad reads the whole vector, past the end of the row.
HWY_INLINE RowVec LoadLanes(RowTag d, const float* HWY_RESTRICT from, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return hn::LoadU(d, from);
  HWY_ALIGN float tail[hn::MaxLanes(RowTag())] = {};
  std::copy_n(from, count, tail);
  return hn::Load(d, tail);
}

// Rounds to bf16, nearest even; NaN stays NaN.
HWY_INLINE hn::Vec<hn::Rebind<uint16_t, RowTag>> RoundLanesToBf16(RowTag d, RowVec x) {
  const hn::RebindToUnsigned<RowTag> du;
  const hn::Rebind<uint16_t, RowTag> d16;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd);
  const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000u));
  const auto chosen = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded);
  return hn::TruncateTo(d16, hn::ShiftRight<16>(chosen));
}

// Stores the first `count` lanes at element `column` of a row of `dtype` (F32 or BF16).
HWY_INLINE void StoreLanes(RowTag d, RowVec x, DType dtype, void* row, int64_t column,
                           int64_t count) {
  const bool whole = count == static_cast<int64_t>(hn::Lanes(d));
  if (dtype == DType::kF32) {
    float* to = static_cast<float*>(row) + column;
    if (whole) {
      hn::StoreU(x, d, to);
    } else {
      hn::BlendedStore(x, hn::FirstN(d, static_cast<size_t>(count)), d, to);
    }
    return;
  }
  const hn::Rebind<uint16_t, RowTag> d16;
  uint16_t* to = static_cast<uint16_t*>(row) + column;
  const auto bits = RoundLanesToBf16(d, x);
  if (whole) {
    hn::StoreU(bits, d16, to);
    return;
  }
  uint16_t lanes[16];
  hn::StoreU(bits, d16, lanes);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
}

// e^x, relative error below 2e-7 where the result is normal; x is clamped to [-87.3, 88.7].
HWY_INLINE RowVec ExpLanes(RowTag d, RowVec x) {
  const hn::RebindToSigned<RowTag> di;
  x = hn::Min(hn::Max(x, hn::Set(d, -87.3f)), hn::Set(d, 88.7f));
  const RowVec n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504f)));
  // x - n ln 2 in two parts, so that no bit of the remainder is lost.
  RowVec r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  RowVec p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  // 2^n in two factors: n can be 128, whose power alone is no float.
  const auto whole = hn::ConvertTo(di, n);
  const auto half = hn::ShiftRight<1>(whole);
  const auto bias = hn::Set(di, 127);
  const RowVec first = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const RowVec second = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::Sub(whole, half), bias)));
  return hn::Mul(hn::Mul(p, first), second);
}

// x / (1 + e^-x).
HWY_INLINE RowVec Silu(RowTag d, RowVec x) {
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), ExpLanes(d, hn::Neg(x))));
}

// x/2 (1 + erf(x / sqrt 2)), erf by Abramowitz and Stegun 7.1.26 refined: absolute error of erf
// below 1.5e-7.
HWY_INLINE RowVec Gelu(RowTag d, RowVec x) {
  const RowVec one = hn::Set(d, 1.0f);
  const RowVec z = hn::Mul(hn::Abs(x), hn::Set(d, 0.70710678118f));
  const RowVec t = hn::Div(one, hn::MulAdd(z, hn::Set(d, 0.3275911f), one));
  RowVec p = hn::Set(d, 1.061405429f);
  p = hn::MulAdd(p, t, hn::Set(d, -1.453152027f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.421413741f));
  p = hn::MulAdd(p, t, hn::Set(d, -0.284496736f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.254829592f));
  const RowVec tail = hn::Mul(hn::Mul(p, t), ExpLanes(d, hn::Neg(hn::Mul(z, z))));
  const RowVec erf = hn::CopySign(hn::Sub(one, tail), x);
  return hn::Mul(hn::Mul(x, hn::Set(d, 0.5f)), hn::Add(one, erf));
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#endif  // VIDEONSA_KERNELS_CPU_ROWS_INL_H_
