#include "kernels/cpu/branch_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gated_combine.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

HWY_ATTR void CombineBranchT(const NsaSpan& span, float* const* outs, const float* factors,
                             bool add) {
  const FloatTag d;
  const size_t head_dim = span.head_dim;
  for (int row = 0; row < span.num_rows(); ++row) {
    const float* HWY_RESTRICT state = span.rows[row].state;
    float* HWY_RESTRICT out = outs[row];
    const float sum = StateSum(state, head_dim);
    const FloatVec f = hn::Set(d, sum > 0 ? factors[row] / sum : 0.0f);
    for (size_t i = 0; i < head_dim; i += kLanes) {
      const FloatVec before = add ? hn::LoadU(d, out + i) : hn::Zero(d);
      hn::StoreU(hn::MulAdd(hn::LoadU(d, state + i), f, before), d, out + i);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(CombineBranchT);

void CombineBranch(const NsaSpan& span, float* const* outs, const float* factors, bool add) {
  HWY_DYNAMIC_DISPATCH(CombineBranchT)(span, outs, factors, add);
}

}  // namespace videonsa
#endif  // HWY_ONCE
