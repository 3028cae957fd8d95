#include "kernels/cpu/released_choice.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/released_choice.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

inline constexpr int kNetworkLanes = 64;

// 2^x with gradual underflow: exactly 0 only below 2^-150; infinity above 2^128. The power is
// multiplied in two halves, so that results below the normal range are rounded once.
HWY_INLINE FloatVec Exp2Gradual(FloatVec x) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  x = hn::Min(hn::Max(x, hn::Set(d, -200.0f)), hn::Set(d, 200.0f));
  const FloatVec whole = hn::Round(x);
  const FloatVec mantissa = Exp2(hn::Sub(x, whole));
  const auto n = hn::ConvertTo(di, whole);
  const auto half = hn::ShiftRight<1>(n);
  const auto power = [&](hn::Vec<decltype(di)> e) HWY_ATTR {
    return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(e, hn::Set(di, 127))));
  };
  return hn::Mul(hn::Mul(mantissa, power(half)), power(hn::Sub(n, half)));
}

HWY_ATTR int ReleasedScoresT(const NsaSpan& span, const PooledTiles& pooled, const float* lse,
                             float scale, float* weights, float* scores) {
  const FloatTag d;
  const int64_t stride = int64_t{pooled.num_tiles} * kKvPageTokens;
  const int last_own = span.positions[span.num_tokens - 1] / kKvPageTokens;
  for (int tile = 0; tile * kKvPageTokens < last_own; ++tile) {
    const float* k = pooled.K(span.kv_head, tile);
    ForGroups(span.num_rows(), [&](auto size, int row) HWY_ATTR {
      Scores<TileKind::kF32, decltype(size)::value>(span.rows + row, k, pooled.head_dim,
                                                    weights + row * stride + tile * kKvPageTokens,
                                                    stride);
    });
  }
  const FloatVec c = hn::Set(d, scale * kLog2E);
  const FloatVec largest = hn::Set(d, std::numeric_limits<float>::max());
  int saturated = 0;
  for (int token = 0; token < span.num_tokens; ++token) {
    const int position = span.positions[token], own = position / kKvPageTokens;
    const float* ell =
        lse + int64_t{position} * kReleasedSlots + span.kv_head * kReleasedSlotsPerKvHead;
    const float* logits = weights + int64_t{token} * span.group * stride;
    float* to = scores + token * stride;
    bool overflow = false;
    for (int b = 0; b < own; b += static_cast<int>(kLanes)) {
      FloatVec w = hn::Zero(d);
      for (int slot = 0; slot < kReleasedSlotsPerKvHead; ++slot) {
        const FloatVec minus_ell = hn::Set(d, -ell[slot] * kLog2E);
        const FloatVec x = slot < span.group
                               ? hn::MulAdd(hn::LoadU(d, logits + slot * stride + b), c, minus_ell)
                               : minus_ell;
        w = hn::Add(w, Exp2Gradual(x));
      }
      const auto real = hn::FirstN(d, static_cast<size_t>(own - b));
      overflow |= !hn::AllFalse(d, hn::And(real, hn::Gt(w, largest)));
      hn::StoreU(hn::Min(w, largest), d, to + b);
    }
    to[own] = kReleasedSlotsPerKvHead;
    saturated += overflow;
  }
  return saturated;
}

HWY_ATTR void ReleasedTextScoresT(const float* lse, int position, int kv_head, float* scores) {
  const FloatTag d;
  const float* ell = lse + int64_t{position} * kReleasedSlots + kv_head * kReleasedSlotsPerKvHead;
  FloatVec w = hn::Zero(d);
  for (int slot = 0; slot < kReleasedSlotsPerKvHead; ++slot) {
    w = hn::Add(w, Exp2Gradual(hn::Set(d, -ell[slot] * kLog2E)));
  }
  const float score = std::min(hn::GetLane(w), std::numeric_limits<float>::max());
  std::fill(scores, scores + position / kKvPageTokens, score);
  scores[position / kKvPageTokens] = kReleasedSlotsPerKvHead;
}

// 64 network lanes of kLanes tokens at a time: lane j of token t at [j * kLanes + t].
struct Network {
  alignas(64) float score[kNetworkLanes * kLanes];
  alignas(64) int32_t index[kNetworkLanes * kLanes];

  HWY_ATTR void Load(const int32_t* positions, int num_tokens, const float* scores, int64_t stride,
                     int chunk) {
    for (int t = 0; t < static_cast<int>(kLanes); ++t) {
      const int own = t < num_tokens ? positions[t] / kKvPageTokens : -1;
      for (int j = 0; j < kNetworkLanes; ++j) {
        const int block = chunk * kNetworkLanes + j;
        const bool real = block <= own;
        score[j * kLanes + t] = real ? scores[t * stride + block] : 0.0f;
        index[j * kLanes + t] = real ? block : -1;
      }
    }
  }

  // `descending_bit`: lane j sorts downwards if j has this bit; 0 upwards all, ~0 downwards all.
  HWY_ATTR void Merge(int t, unsigned descending_bit) {
    const FloatTag d;
    const hn::RebindToSigned<FloatTag> di;
    for (unsigned distance = 1u << (t - 1); distance > 0; distance /= 2) {
      for (unsigned j = 0; j < kNetworkLanes; ++j) {
        if ((j & distance) != 0) continue;
        const size_t left = j * kLanes, right = (j + distance) * kLanes;
        const FloatVec a = hn::Load(d, score + left), b = hn::Load(d, score + right);
        const auto ia = hn::Load(di, index + left), ib = hn::Load(di, index + right);
        const bool descending = descending_bit == ~0u || (j & descending_bit) != 0;
        // Swapped when (a > b) differs from the direction: equal scores swap when descending.
        const auto greater = hn::Gt(a, b);
        const auto swap = descending ? hn::Not(greater) : greater;
        const auto swap_index = hn::RebindMask(di, swap);
        hn::Store(hn::IfThenElse(swap, b, a), d, score + left);
        hn::Store(hn::IfThenElse(swap, a, b), d, score + right);
        hn::Store(hn::IfThenElse(swap_index, ib, ia), di, index + left);
        hn::Store(hn::IfThenElse(swap_index, ia, ib), di, index + right);
      }
    }
  }
};

HWY_ATTR void NetworkChoiceT(const int32_t* positions, int num_tokens, const float* scores,
                             int64_t stride, int n, int32_t* blocks) {
  Network kept, chunk;
  for (int begin = 0; begin < num_tokens; begin += static_cast<int>(kLanes)) {
    const int count = std::min(static_cast<int>(kLanes), num_tokens - begin);
    const int chunks = positions[begin] / kKvPageTokens / kNetworkLanes + 1;
    for (int x = 0; x < chunks; ++x) {
      Network& now = x == 0 ? kept : chunk;
      now.Load(positions + begin, count, scores + begin * stride, stride, x);
      for (int t = 1; t <= 5; ++t) now.Merge(t, 1u << t);
      if (x > 0) {
        chunk.Merge(6, 0);
        const size_t half = kNetworkLanes / 2 * kLanes;
        std::copy_n(chunk.score + half, half, kept.score + half);
        std::copy_n(chunk.index + half, half, kept.index + half);
      }
      kept.Merge(6, ~0u);
    }
    for (int t = 0; t < count; ++t) {
      for (int i = 0; i < n; ++i) {
        blocks[int64_t{begin + t} * n + i] = kept.index[i * kLanes + t];
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(ReleasedScoresT);
HWY_EXPORT(ReleasedTextScoresT);
HWY_EXPORT(NetworkChoiceT);

int ReleasedScores(const NsaSpan& span, const PooledTiles& pooled, const float* lse, float scale,
                   float* weights, float* scores) {
  return HWY_DYNAMIC_DISPATCH(ReleasedScoresT)(span, pooled, lse, scale, weights, scores);
}

void ReleasedTextScores(const float* lse, int position, int kv_head, float* scores) {
  HWY_DYNAMIC_DISPATCH(ReleasedTextScoresT)(lse, position, kv_head, scores);
}

void NetworkChoice(const int32_t* positions, int num_tokens, const float* scores, int64_t stride,
                   int n, int32_t* blocks) {
  HWY_DYNAMIC_DISPATCH(NetworkChoiceT)(positions, num_tokens, scores, stride, n, blocks);
}

}  // namespace videonsa
#endif  // HWY_ONCE
