#include "kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include "kernels/cpu/highway_targets.h"
// Keep after the targets.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void RopeImpl(const RopeParams& p) {
  // Half a head is a multiple of 8 floats.
  const hn::CappedTag<float, 8> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t half = p.head_dim / 2;
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t table = (p.order == nullptr ? row : p.order[row]) * half;
    for (int head = 0; head < p.num_heads; ++head) {
      float* HWY_RESTRICT low = p.x + row * p.x_stride + int64_t{head} * p.head_dim;
      float* HWY_RESTRICT high = low + half;
      for (int64_t i = 0; i < half; i += lanes) {
        const auto c = hn::LoadU(d, p.cos + table + i);
        const auto s = hn::LoadU(d, p.sin + table + i);
        const auto a = hn::LoadU(d, low + i);
        const auto b = hn::LoadU(d, high + i);
        hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, low + i);
        hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, high + i);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(RopeImpl);
void Rope(const RopeParams& params) { HWY_DYNAMIC_DISPATCH(RopeImpl)(params); }
}  // namespace videonsa
#endif
