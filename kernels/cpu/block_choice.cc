#include "kernels/cpu/block_choice.h"

#include <algorithm>
#include <functional>
#include <limits>

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

// A weight that at least `keep` blocks reach, -inf if there is no cheap one: the blocks are cut
// into lanes, and the keep-th largest of the lanes' maxima has keep blocks at or above it.
HWY_ATTR float ReachedByMany(const float* HWY_RESTRICT weights, int own, int keep) {
  constexpr int kMaxSets = 4;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const FloatTag d;
  const FloatVec none = hn::Set(d, kNone);
  const int lanes = static_cast<int>(kLanes);
  const int sets = (keep + lanes - 1) / lanes;
  if (sets > kMaxSets || own < 4 * sets * lanes) return kNone;
  alignas(64) float maxima[kMaxSets * 16];
  for (int set = 0; set < sets; ++set) {
    FloatVec top = none;
    for (int b = set * lanes; b < own; b += sets * lanes) {
      const auto real = hn::FirstN(d, std::min(lanes, own - b));
      top = hn::Max(top, hn::IfThenElse(real, hn::LoadU(d, weights + b), none));
    }
    hn::StoreU(top, d, maxima + set * lanes);
  }
  std::nth_element(maxima, maxima + keep - 1, maxima + sets * lanes, std::greater<float>());
  return maxima[keep - 1];
}

// Walks upwards and replaces the lightest kept block by a strictly heavier one, so equal weights
// stay with the lower index. Blocks that cannot be among the heaviest are passed over.
HWY_ATTR void KeepHeaviest(const float* HWY_RESTRICT weights, int own, int keep,
                           int32_t* HWY_RESTRICT blocks, float* HWY_RESTRICT kept) {
  const FloatTag d;
  const FloatVec least = hn::Set(d, ReachedByMany(weights, own, keep));
  int count = 0, lightest = 0;
  for (int begin = 0; begin < own;) {
    const int lanes = std::min(static_cast<int>(kLanes), own - begin);
    const FloatVec here = hn::LoadU(d, weights + begin);
    const auto heavier =
        hn::And(count < keep ? hn::Ge(here, least) : hn::Gt(here, hn::Set(d, kept[lightest])),
                hn::FirstN(d, lanes));
    const intptr_t first = hn::FindFirstTrue(d, heavier);
    if (first < 0) {
      begin += lanes;
      continue;
    }
    const int block = begin + static_cast<int>(first);
    const int place = count < keep ? count++ : lightest;
    blocks[place] = block;
    kept[place] = weights[block];
    if (count == keep) lightest = Lightest(kept, blocks, keep);
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
