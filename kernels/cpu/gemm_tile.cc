#include "kernels/cpu/gemm_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_tile.cc"
#include "kernels/cpu/highway_targets.h"
// Keep after the targets.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kPanelColumns = 64;

// kRows rows times 16 columns of one panel.
template <int kRows>
void MultiplyStrip(const TileProduct& p, int64_t row, const float* HWY_RESTRICT panel,
                   int64_t column, float* HWY_RESTRICT strip) {
  const hn::CappedTag<float, 16> d;
  constexpr size_t kLanes = HWY_MIN(16, HWY_LANES(float));
  constexpr size_t kVecs = 16 / kLanes;
  hn::Vec<decltype(d)> acc[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVecs; ++v) acc[r][v] = hn::Zero(d);
  }
  const float* HWY_RESTRICT w = panel + column;
  const float* HWY_RESTRICT x = p.x + row * p.x_stride;
  for (int64_t k = 0; k < p.k; ++k, w += kPanelColumns) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVecs; ++v) {
      const auto b = hn::Load(d, w + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        acc[r][v] = hn::MulAdd(hn::Set(d, x[r * p.x_stride + k]), b, acc[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVecs; ++v) hn::Store(acc[r][v], d, strip + r * 16 + v * kLanes);
  }
}

void MultiplyTileImpl(const TileProduct& p) {
  constexpr int kRows = 4;
  HWY_ALIGN float strip[kRows * 16];
  for (int64_t column = 0; column < p.columns; column += 16) {
    const float* panel = p.panels + column / kPanelColumns * p.padded_k * kPanelColumns;
    const int64_t width = HWY_MIN(int64_t{16}, p.columns - column);
    for (int64_t row = 0; row < p.rows;) {
      const int64_t rows = p.rows - row >= kRows ? kRows : 1;
      if (rows == kRows) {
        MultiplyStrip<kRows>(p, row, panel, column % kPanelColumns, strip);
      } else {
        MultiplyStrip<1>(p, row, panel, column % kPanelColumns, strip);
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < width; ++c) {
          p.out[(row + r) * p.columns + column + c] = strip[r * 16 + c];
        }
      }
      row += rows;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(MultiplyTileImpl);
void MultiplyTile(const TileProduct& product) { HWY_DYNAMIC_DISPATCH(MultiplyTileImpl)(product); }
}  // namespace videonsa
#endif
