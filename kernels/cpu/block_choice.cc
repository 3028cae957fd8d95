#include "kernels/cpu/block_choice.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/block_choice.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

// The lightest of the kept blocks; among equals the one with the highest index.
int Lightest(const float* weights, const int32_t* blocks, int count) {
  int at = 0;
  for (int i = 1; i < count; ++i) {
    const bool lighter = weights[i] < weights[at];
    const bool later = weights[i] == weights[at] && blocks[i] > blocks[at];
    at = lighter || later ? i : at;
  }
  return at;
}

// Walks upwards and replaces the lightest kept block by a strictly heavier one, so equal weights
// stay with the lower index.
HWY_ATTR void KeepHeaviest(const float* HWY_RESTRICT weights, int own, int keep,
                           int32_t* HWY_RESTRICT blocks, float* HWY_RESTRICT kept) {
  const FloatTag d;
  for (int b = 0; b < keep; ++b) {
    blocks[b] = b;
    kept[b] = weights[b];
  }
  int lightest = Lightest(kept, blocks, keep);
  for (int begin = keep; begin < own;) {
    const int lanes = std::min(static_cast<int>(kLanes), own - begin);
    const auto heavier = hn::And(hn::Gt(hn::LoadU(d, weights + begin), hn::Set(d, kept[lightest])),
                                 hn::FirstN(d, lanes));
    const intptr_t first = hn::FindFirstTrue(d, heavier);
    if (first < 0) {
      begin += lanes;
      continue;
    }
    const int block = begin + static_cast<int>(first);
    blocks[lightest] = block;
    kept[lightest] = weights[block];
    lightest = Lightest(kept, blocks, keep);
    begin = block + 1;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(KeepHeaviest);

int ChooseCausalBlocks(const float* weights, int own, int count, int32_t* blocks, float* scratch) {
  const int chosen = std::min(count, own + 1);
  if (chosen - 1 == own) {
    for (int b = 0; b < own; ++b) blocks[b] = b;
  } else if (chosen > 1) {
    HWY_DYNAMIC_DISPATCH(KeepHeaviest)(weights, own, chosen - 1, blocks, scratch);
  }
  blocks[chosen - 1] = own;
  std::fill(blocks + chosen, blocks + count, -1);
  return chosen;
}

}  // namespace videonsa
#endif  // HWY_ONCE
