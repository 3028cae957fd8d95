#include "kernels/cpu/gemm_epilogue.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_epilogue.cc"
#include "kernels/cpu/highway_targets.h"
// Keep after the targets.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void FinishTileImpl(const TileOutput& p) {
  const RowTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t row = 0; row < p.rows; ++row) {
    const float* HWY_RESTRICT tile = p.tile + row * p.columns;
    void* out = RowOf(p.out, p.out_dtype, row * p.out_stride);
    for (int64_t column = 0; column < p.columns; column += lanes) {
      const int64_t count = HWY_MIN(lanes, p.columns - column);
      RowVec value = LoadLanes(d, tile + column, count);
      if (p.bias != nullptr) value = hn::Add(value, LoadLanes(d, p.bias + column, count));
      if (p.epilogue == GemmEpilogue::kGelu) value = Gelu(d, value);
      if (p.epilogue == GemmEpilogue::kAdd) {
        value = hn::Add(LoadLanes(d, static_cast<const float*>(out) + column, count), value);
      }
      StoreLanes(d, value, p.out_dtype, out, column, count);
    }
  }
}

void FinishSwiGluImpl(const SwiGluOutput& p) {
  const RowTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t row = 0; row < p.rows; ++row) {
    const float* HWY_RESTRICT gate_row = p.gate + row * p.columns;
    const float* HWY_RESTRICT up_row = p.up + row * p.columns;
    void* out = RowOf(p.out, p.out_dtype, row * p.out_stride);
    for (int64_t column = 0; column < p.columns; column += lanes) {
      const int64_t count = HWY_MIN(lanes, p.columns - column);
      RowVec gate = LoadLanes(d, gate_row + column, count);
      RowVec up = LoadLanes(d, up_row + column, count);
      if (p.gate_bias != nullptr) {
        gate = hn::Add(gate, LoadLanes(d, p.gate_bias + column, count));
        up = hn::Add(up, LoadLanes(d, p.up_bias + column, count));
      }
      StoreLanes(d, hn::Mul(Silu(d, gate), up), p.out_dtype, out, column, count);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(FinishTileImpl);
HWY_EXPORT(FinishSwiGluImpl);
void FinishTile(const TileOutput& output) { HWY_DYNAMIC_DISPATCH(FinishTileImpl)(output); }
void FinishSwiGlu(const SwiGluOutput& output) { HWY_DYNAMIC_DISPATCH(FinishSwiGluImpl)(output); }
}  // namespace videonsa
#endif
