#include <algorithm>

#include "kernels/cpu/branch_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/window_attention.cc"
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

template <TileKind kKind>
HWY_ATTR void WindowTiles(const BranchArgs& a, int window) {
  const NsaSpan& span = a.span;
  const size_t head_dim = span.head_dim;
  for (int row = 0; row < span.num_rows(); ++row) ResetState(span.rows[row].state, head_dim);
  const int first_key = std::max(0, span.positions[0] - window + 1);
  const int last_key = span.positions[span.num_tokens - 1];
  alignas(64) float keep[kKvPageTokens];
  for (int block = first_key / kKvPageTokens; block <= last_key / kKvPageTokens; ++block) {
    const int key_begin = block * kKvPageTokens;
    int begin = 0;  // tokens [begin, end) see the block
    while (begin < span.num_tokens && span.positions[begin] < key_begin) ++begin;
    int end = begin;
    while (end < span.num_tokens && span.positions[end] - window + 1 < key_begin + kKvPageTokens) {
      ++end;
    }
    if (begin == end) continue;
    for (int row = begin * span.group; row < end * span.group; ++row) {
      const int position = span.positions[row / span.group];
      span.rows[row].lo = std::max(0, position - window + 1 - key_begin);
      span.rows[row].hi = std::min(kKvPageTokens, position + 1 - key_begin);
    }
    KvTile tile = TileOf(a.kv, a.kv.page_ids, block, span.kv_head);
    tile.keep = KeepOfBlock(a.keep_keys, block, last_key, keep);
    AttendTile<kKind>(span.rows + begin * span.group, (end - begin) * span.group, tile, head_dim,
                      a.scale * kLog2E);
  }
}

void WindowAttentionT(const BranchArgs& args, int window) {
  WithTileKind(args.kv, args.math,
               [&](auto kind) { WindowTiles<decltype(kind)::value>(args, window); });
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(WindowAttentionT);

void WindowAttention(const BranchArgs& args, int window) {
  HWY_DYNAMIC_DISPATCH(WindowAttentionT)(args, window);
}

}  // namespace videonsa
#endif  // HWY_ONCE
