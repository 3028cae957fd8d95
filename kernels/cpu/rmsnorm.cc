#include "kernels/cpu/rmsnorm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rmsnorm.cc"
#include "kernels/cpu/highway_targets.h"
// Keep after the targets.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void RmsNormImpl(const RmsNormParams& p) {
  const RowTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t row = 0; row < p.rows; ++row) {
    const float* HWY_RESTRICT x = p.x + row * p.x_stride;
    RowVec squares = hn::Zero(d);
    for (int64_t column = 0; column < p.columns; column += lanes) {
      const RowVec value = LoadLanes(d, x + column, HWY_MIN(lanes, p.columns - column));
      squares = hn::MulAdd(value, value, squares);
    }
    const float mean = hn::GetLane(hn::SumOfLanes(d, squares)) / static_cast<float>(p.columns);
    const RowVec factor = hn::Set(d, 1.0f / std::sqrt(mean + p.eps));
    void* out = RowOf(p.out, p.out_dtype, row * p.out_stride);
    for (int64_t column = 0; column < p.columns; column += lanes) {
      const int64_t count = HWY_MIN(lanes, p.columns - column);
      const RowVec value = hn::Mul(LoadLanes(d, x + column, count), factor);
      StoreLanes(d, hn::Mul(value, LoadLanes(d, p.weight + column, count)), p.out_dtype, out,
                 column, count);
    }
  }
}

void ConvertRowsImpl(const ConvertParams& p) {
  const RowTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t from = p.order == nullptr ? row : p.order[row];
    const float* HWY_RESTRICT x = p.x + from * p.x_stride;
    void* out = RowOf(p.out, p.out_dtype, row * p.out_stride);
    for (int64_t column = 0; column < p.columns; column += lanes) {
      const int64_t count = HWY_MIN(lanes, p.columns - column);
      StoreLanes(d, LoadLanes(d, x + column, count), p.out_dtype, out, column, count);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(RmsNormImpl);
HWY_EXPORT(ConvertRowsImpl);
void RmsNorm(const RmsNormParams& params) { HWY_DYNAMIC_DISPATCH(RmsNormImpl)(params); }
void ConvertRows(const ConvertParams& params) { HWY_DYNAMIC_DISPATCH(ConvertRowsImpl)(params); }
}  // namespace videonsa
#endif
