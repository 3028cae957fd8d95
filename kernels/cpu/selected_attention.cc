#include <algorithm>

#include "kernels/cpu/branch_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/selected_attention.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/keep_keys.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

// Turns "blocks of each token" into "tokens of each block", tokens ascending.
void TurnAround(const NsaSpan& span, const BlockLists& lists) {
  int32_t* first = lists.first;
  std::fill(first, first + lists.num_blocks + 2, 0);
  const int entries = span.num_tokens * lists.stride;
  for (int i = 0; i < entries; ++i) {
    if (lists.blocks[i] >= 0) ++first[lists.blocks[i] + 2];
  }
  for (int b = 0; b < lists.num_blocks; ++b) first[b + 2] += first[b + 1];
  for (int i = 0; i < entries; ++i) {
    if (lists.blocks[i] >= 0) lists.tokens[first[lists.blocks[i] + 1]++] = i / lists.stride;
  }
}

// Fetches a share of a tile into the second-level cache: part `index` of `count`.
void PrefetchPart(const KvTile& tile, size_t bytes, int index, int count) {
  constexpr size_t kLine = 64;
  const size_t lines = bytes / kLine;
  const size_t begin = lines * index / count, end = lines * (index + 1) / count;
  for (size_t line = begin; line < end; ++line) {
    __builtin_prefetch(static_cast<const char*>(tile.k) + line * kLine, 0, 2);
    __builtin_prefetch(static_cast<const char*>(tile.v) + line * kLine, 0, 2);
  }
}

template <TileKind kKind>
HWY_ATTR void SelectedTiles(const BranchArgs& a, const BlockLists& lists) {
  const NsaSpan& span = a.span;
  const size_t head_dim = span.head_dim;
  for (int row = 0; row < span.num_rows(); ++row) ResetState(span.rows[row].state, head_dim);
  TurnAround(span, lists);
  const int last_key = span.positions[span.num_tokens - 1];
  alignas(64) float keep[kKvPageTokens];
  const size_t tile_bytes = KvTileElements(span.head_dim) * SizeOf(a.kv.dtype);
  const auto next_chosen = [&](int block) {
    while (block < lists.num_blocks && lists.first[block] == lists.first[block + 1]) ++block;
    return block;
  };
  for (int block = next_chosen(0), next; block < lists.num_blocks; block = next) {
    const int begin = lists.first[block], end = lists.first[block + 1];
    TileRow* to = span.gathered;
    for (int i = begin; i < end; ++i) {
      const int token = lists.tokens[i];
      const int hi = std::min(kKvPageTokens, span.positions[token] + 1 - block * kKvPageTokens);
      for (int r = 0; r < span.group; ++r, ++to) {
        *to = span.rows[token * span.group + r];
        to->lo = 0;
        to->hi = hi;
      }
    }
    KvTile tile = TileOf(a.kv, a.kv.page_ids, block, span.kv_head);
    tile.keep = KeepOfBlock(a.keep_keys, block, last_key, keep);
    // Few rows chose a tile that was not read lately: the next one is fetched beside the products.
    next = next_chosen(block + 1);
    const int num_rows = static_cast<int>(to - span.gathered);
    const int groups = (num_rows + kMaxGroup - 1) / kMaxGroup;
    const KvTile ahead =
        TileOf(a.kv, a.kv.page_ids, next < lists.num_blocks ? next : block, span.kv_head);
    for (int group = 0; group < groups; ++group) {
      if (next < lists.num_blocks) PrefetchPart(ahead, tile_bytes, group, groups);
      const int first = group * kMaxGroup;
      AttendTile<kKind>(span.gathered + first, std::min(kMaxGroup, num_rows - first), tile,
                        head_dim, a.scale * kLog2E);
    }
  }
}

void SelectedAttentionT(const BranchArgs& args, const BlockLists& lists) {
  WithTileKind(args.kv, args.math,
               [&](auto kind) { SelectedTiles<decltype(kind)::value>(args, lists); });
}

void PrepareQueriesT(const NsaSpan& span, const PagedKv& kv, MathType math, uint32_t* q_pairs) {
  WithTileKind(kv, math, [&](auto kind) {
    if (decltype(kind)::value != TileKind::kBf16Dot) return;
    for (int row = 0; row < span.num_rows(); ++row) {
      uint32_t* to = q_pairs + int64_t{row} * span.head_dim / 2;
      RowToBf16(span.rows[row].q, span.head_dim, to);
      span.rows[row].q_pairs = to;
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(SelectedAttentionT);
HWY_EXPORT(PrepareQueriesT);

void SelectedAttention(const BranchArgs& args, const BlockLists& lists) {
  HWY_DYNAMIC_DISPATCH(SelectedAttentionT)(args, lists);
}

void PrepareQueries(const NsaSpan& span, const PagedKv& kv, MathType math, uint32_t* q_pairs) {
  HWY_DYNAMIC_DISPATCH(PrepareQueriesT)(span, kv, math, q_pairs);
}

}  // namespace videonsa
#endif  // HWY_ONCE
