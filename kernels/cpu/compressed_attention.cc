#include "kernels/cpu/compressed_attention.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/compressed_attention.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

struct BlockRange {
  int first = 0;
  int last = 0;
};

BlockRange VisibleBlocks(const CompressedArgs& a, int position) {
  if (a.view == CompressedView::kEarlier) return {0, (position + 1) / kKvPageTokens};
  return {position / kKvPageTokens, a.pooled.num_blocks};
}

// Scales logits of the blocks in `tiles` to log2 units, -inf where not visible; returns the
// highest.
HWY_ATTR FloatVec ScaleLogits(BlockRange tiles, BlockRange visible, float log2_scale,
                              float* HWY_RESTRICT w) {
  const FloatTag d;
  const FloatVec c = hn::Set(d, log2_scale);
  const FloatVec minus_inf = hn::Set(d, -std::numeric_limits<float>::infinity());
  const FloatVec lo = hn::Set(d, static_cast<float>(visible.first));
  const FloatVec hi = hn::Set(d, static_cast<float>(visible.last));
  const int begin = tiles.first * kKvPageTokens, end = tiles.last * kKvPageTokens;
  FloatVec top = minus_inf;
  for (int b = begin; b < end; b += static_cast<int>(kLanes)) {
    const FloatVec block = hn::Iota(d, static_cast<float>(b));
    const FloatVec x = hn::IfThenElse(hn::And(hn::Ge(block, lo), hn::Lt(block, hi)),
                                      hn::Mul(hn::LoadU(d, w + b), c), minus_inf);
    top = hn::Max(top, x);
    hn::StoreU(x, d, w + b);
  }
  return hn::MaxOfLanes(d, top);
}

// Sum of 2^(x - top) over scaled logits, which become these powers if kStore.
template <bool kStore>
HWY_ATTR float SumOfPowers(BlockRange tiles, FloatVec top, float* HWY_RESTRICT w) {
  const FloatTag d;
  const FloatVec minus_inf = hn::Set(d, -std::numeric_limits<float>::infinity());
  const int begin = tiles.first * kKvPageTokens, end = tiles.last * kKvPageTokens;
  FloatVec sum = hn::Zero(d);
  for (int b = begin; b < end; b += static_cast<int>(kLanes)) {
    const FloatVec x = hn::LoadU(d, w + b);
    const FloatVec p = hn::IfThenElseZero(hn::Gt(x, minus_inf), Exp2(hn::Sub(x, top)));
    sum = hn::Add(sum, p);
    if constexpr (kStore) hn::StoreU(p, d, w + b);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// Turns logits of the blocks in `tiles` into weights; returns the log-sum-exp in log2 units.
HWY_ATTR float BlockSoftmax(BlockRange tiles, BlockRange visible, float log2_scale,
                            float* HWY_RESTRICT w) {
  const FloatTag d;
  const int begin = tiles.first * kKvPageTokens, end = tiles.last * kKvPageTokens;
  const FloatVec top = ScaleLogits(tiles, visible, log2_scale, w);
  const float total = SumOfPowers<true>(tiles, top, w);
  const FloatVec inverse = hn::Set(d, total > 0 ? 1.0f / total : 0.0f);
  for (int b = begin; b < end; b += static_cast<int>(kLanes)) {
    hn::StoreU(hn::Mul(hn::LoadU(d, w + b), inverse), d, w + b);
  }
  return hn::GetLane(top) + std::log2(total);
}

HWY_ATTR void SumRows(const CompressedArgs& a, int token, int stride, BlockRange tiles) {
  const FloatTag d;
  const float* HWY_RESTRICT w = a.weights + int64_t{token} * a.span.group * stride;
  float* HWY_RESTRICT to = a.importance + int64_t{token} * stride;
  for (int b = tiles.first * kKvPageTokens; b < tiles.last * kKvPageTokens;
       b += static_cast<int>(kLanes)) {
    FloatVec sum = hn::LoadU(d, w + b);
    for (int i = 1; i < a.span.group; ++i) sum = hn::Add(sum, hn::LoadU(d, w + i * stride + b));
    hn::StoreU(sum, d, to + b);
  }
}

// Log2 of what SumRows gives, from log2 weights; finite, whatever the logits were.
HWY_ATTR void SumLogRows(const CompressedArgs& a, int token, int stride, BlockRange tiles) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, std::numeric_limits<float>::lowest());
  const float* HWY_RESTRICT w = a.weights + int64_t{token} * a.span.group * stride;
  float* HWY_RESTRICT to = a.importance + int64_t{token} * stride;
  for (int b = tiles.first * kKvPageTokens; b < tiles.last * kKvPageTokens;
       b += static_cast<int>(kLanes)) {
    FloatVec top = lowest;
    for (int i = 0; i < a.span.group; ++i) top = hn::Max(hn::LoadU(d, w + i * stride + b), top);
    FloatVec sum = hn::Zero(d);
    for (int i = 0; i < a.span.group; ++i) {
      sum = hn::Add(sum, Exp2(hn::Sub(hn::LoadU(d, w + i * stride + b), top)));
    }
    const FloatVec x = hn::Add(top, hn::Log2(d, sum));
    hn::StoreU(hn::IfThenElse(hn::Gt(x, lowest), x, lowest), d, to + b);
  }
}

// Blocks that any of the tokens sees, and the tiles they lie in.
struct Seen {
  BlockRange blocks;
  BlockRange tiles;
};

Seen SeenBySpan(const CompressedArgs& a) {
  Seen seen;
  seen.blocks = VisibleBlocks(a, a.span.positions[0]);
  seen.blocks.last = VisibleBlocks(a, a.span.positions[a.span.num_tokens - 1]).last;
  const int first = seen.blocks.first / kKvPageTokens;
  const bool any = seen.blocks.last > seen.blocks.first;
  seen.tiles = {first, any ? PooledTiles::TilesOf(seen.blocks.last) : first};
  return seen;
}

HWY_ATTR void ScoreBlocks(const CompressedArgs& a, int stride, BlockRange tiles) {
  const NsaSpan& span = a.span;
  const size_t head_dim = span.head_dim;
  for (int tile = tiles.first; tile < tiles.last; ++tile) {
    const float* k = a.pooled.K(span.kv_head, tile);
    ForGroups(span.num_rows(), [&](auto size, int row) HWY_ATTR {
      Scores<TileKind::kF32, decltype(size)::value>(
          span.rows + row, k, head_dim, a.weights + int64_t{row} * stride + tile * kKvPageTokens,
          stride);
    });
  }
}

HWY_ATTR void LogImportanceT(const CompressedArgs& a) {
  const int stride = a.pooled.num_tiles * kKvPageTokens;
  const BlockRange tiles = SeenBySpan(a).tiles;
  const FloatTag d;
  ScoreBlocks(a, stride, tiles);
  for (int row = 0; row < a.span.num_rows(); ++row) {
    const BlockRange visible = VisibleBlocks(a, a.span.positions[row / a.span.group]);
    float* HWY_RESTRICT w = a.weights + int64_t{row} * stride;
    const FloatVec top = ScaleLogits(tiles, visible, a.scale * kLog2E, w);
    const float total = SumOfPowers<false>(tiles, top, w);
    const FloatVec log2_sum = hn::Add(top, hn::Set(d, std::log2(total)));
    for (int b = tiles.first * kKvPageTokens; b < tiles.last * kKvPageTokens;
         b += static_cast<int>(kLanes)) {
      hn::StoreU(hn::Sub(hn::LoadU(d, w + b), log2_sum), d, w + b);
    }
  }
  for (int token = 0; token < a.span.num_tokens; ++token) SumLogRows(a, token, stride, tiles);
}

HWY_ATTR void CompressedAttentionT(const CompressedArgs& a) {
  const NsaSpan& span = a.span;
  const size_t head_dim = span.head_dim;
  const int stride = a.pooled.num_tiles * kKvPageTokens;
  const auto [seen, tiles] = SeenBySpan(a);
  ScoreBlocks(a, stride, tiles);
  for (int row = 0; row < span.num_rows(); ++row) {
    const BlockRange visible = VisibleBlocks(a, span.positions[row / span.group]);
    const float log2_sum =
        BlockSoftmax(tiles, visible, a.scale * kLog2E, a.weights + int64_t{row} * stride);
    if (a.lse != nullptr) a.lse[row] = log2_sum * kLn2;
    ResetState(span.rows[row].state, head_dim);
    span.rows[row].state[head_dim] = visible.last > visible.first ? 1.0f : 0.0f;
  }
  if (a.importance != nullptr) {
    for (int token = 0; token < span.num_tokens; ++token) SumRows(a, token, stride, tiles);
  }
  for (int tile = tiles.first; tile < tiles.last; ++tile) {
    const int begin = tile * kKvPageTokens;
    const KeyRange keys{static_cast<size_t>(std::max(0, seen.first - begin)),
                        static_cast<size_t>(std::min(kKvPageTokens, seen.last - begin))};
    const float* v = a.pooled.V(span.kv_head, tile);
    ForGroups(span.num_rows(), [&](auto size, int row) HWY_ATTR {
      Accumulate<TileKind::kF32, decltype(size)::value>(span.rows + row, v, head_dim, keys,
                                                        a.weights + int64_t{row} * stride + begin,
                                                        nullptr, stride);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(CompressedAttentionT);
HWY_EXPORT(LogImportanceT);

void CompressedAttention(const CompressedArgs& args) {
  HWY_DYNAMIC_DISPATCH(CompressedAttentionT)(args);
}

void LogImportance(const CompressedArgs& args) { HWY_DYNAMIC_DISPATCH(LogImportanceT)(args); }

}  // namespace videonsa
#endif  // HWY_ONCE
