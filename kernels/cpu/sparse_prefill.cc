#include "kernels/cpu/sparse_prefill.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "kernels/cpu/sparse_plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sparse_prefill.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

#ifndef VIDEONSA_KERNELS_CPU_SPARSE_WALK_
#define VIDEONSA_KERNELS_CPU_SPARSE_WALK_
namespace videonsa {

// Room for one task of the walk: 64 rows of one query head.
struct WalkThread {
  TileRow* rows = nullptr;
  TileRow* seeing = nullptr;  // the rows that see the current tile
  float* states = nullptr;
  uint32_t* q_pairs = nullptr;
  void* k_gathered = nullptr;  // a tile of single columns
  void* v_gathered = nullptr;
  int64_t* pairs = nullptr;

  static WalkThread Take(ScratchCursor& cursor, const PagedKv& kv) {
    WalkThread t;
    t.rows = cursor.Take<TileRow>(kKvPageTokens);
    t.seeing = cursor.Take<TileRow>(kKvPageTokens);
    t.states = cursor.Take<float>(kKvPageTokens * StateFloats(kv.head_dim));
    t.q_pairs = cursor.Take<uint32_t>(KvTileElements(kv.head_dim) / 2);
    t.k_gathered = cursor.Take<char>(KvTileElements(kv.head_dim) * SizeOf(kv.dtype));
    t.v_gathered = cursor.Take<char>(KvTileElements(kv.head_dim) * SizeOf(kv.dtype));
    t.pairs = cursor.Take<int64_t>(1);
    return t;
  }
  static size_t Bytes(const PagedKv& kv) {
    ScratchCursor cursor(nullptr);
    Take(cursor, kv);
    return cursor.used();
  }
};

struct Walk {
  const SparsePrefillParams& p;
  const SparseScratch& s;
  char* threads;

  WalkThread Thread(int thread) const {
    ScratchCursor cursor(threads + thread * WalkThread::Bytes(p.kv));
    return WalkThread::Take(cursor, p.kv);
  }

  // Copies key `key` into place `at` of the gathered tile.
  void Gather(const WalkThread& t, int kv_head, int key, int at) const {
    const KvTile from = TileOf(p.kv, p.kv.page_ids, key / kKvPageTokens, kv_head);
    const int token = key % kKvPageTokens, dim = p.kv.head_dim;
    if (p.kv.dtype == DType::kF32) {
      const float* k = static_cast<const float*>(from.k);
      float* to = static_cast<float*>(t.k_gathered);
      for (int d = 0; d < dim; ++d) to[d * kKvPageTokens + at] = k[d * kKvPageTokens + token];
      std::memcpy(static_cast<float*>(t.v_gathered) + at * dim,
                  static_cast<const float*>(from.v) + token * dim, sizeof(float) * dim);
      return;
    }
    const uint32_t* k = static_cast<const uint32_t*>(from.k);
    uint32_t* to = static_cast<uint32_t*>(t.k_gathered);
    for (int d = 0; d < dim / 2; ++d) to[d * kKvPageTokens + at] = k[d * kKvPageTokens + token];
    const uint16_t* v = static_cast<const uint16_t*>(from.v) + token / 2 * dim * 2 + token % 2;
    uint16_t* v_to = static_cast<uint16_t*>(t.v_gathered) + at / 2 * dim * 2 + at % 2;
    for (int d = 0; d < dim; ++d) v_to[2 * d] = v[2 * d];
  }

  // First key of the tile at `key_begin` that row `position` sees under tri_shape; 64: none.
  int TriFirst(int position, int key_begin) const {
    const int last = std::min(p.settings.tri_last, p.num_rows - 1);
    if (position >= p.num_rows - last || key_begin < p.settings.tri_init) return 0;
    return std::clamp(position - p.settings.tri_local + 1 - key_begin, 0, kKvPageTokens);
  }

  bool Kept(int head, int query_begin, int key_begin) const {
    if (s.plan.blocks == nullptr) return true;
    return s.plan.Blocks(head)[int64_t{query_begin / kSparseBlock} * s.plan.num_blocks +
                               key_begin / kSparseBlock] != 0;
  }
};

}  // namespace videonsa
#endif  // VIDEONSA_KERNELS_CPU_SPARSE_WALK_

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

template <TileKind kKind>
struct WalkTask : Walk {
  HWY_ATTR void operator()(int64_t task, int thread) const {
    const int spans = (p.num_rows + kKvPageTokens - 1) / kKvPageTokens;
    const int begin = (spans - 1 - static_cast<int>(task / p.num_q_heads)) * kKvPageTokens;
    const int head = static_cast<int>(task % p.num_q_heads);
    const int kv_head = head * p.kv.num_kv_heads / p.num_q_heads;
    const int num_rows = std::min(kKvPageTokens, p.num_rows - begin);
    const WalkThread t = Thread(thread);
    Begin(t, head, begin, num_rows);
    for (int key_begin = 0; key_begin <= begin; key_begin += kKvPageTokens) {
      if (!Kept(head, begin, key_begin)) continue;
      KvTile tile = TileOf(p.kv, p.kv.page_ids, key_begin / kKvPageTokens, kv_head);
      int seen_keys = kKvPageTokens;
      if (p.pattern == SparsePattern::kMInference) {
        tile.visible = s.plan.Covered(head) + p.num_rows - 1 - begin + key_begin;
        seen_keys = static_cast<int>(std::count(tile.visible, tile.visible + kKvPageTokens, 1.0f));
        if (seen_keys == 0) continue;
        if (seen_keys == kKvPageTokens) tile.visible = nullptr;
      }
      const int seeing = RowsThatSee(t, num_rows, begin, key_begin, tile.visible);
      if (seeing == 0) continue;
      AttendTile<kKind>(t.seeing, seeing, tile, p.kv.head_dim, p.scale * kLog2E);
    }
    if (p.pattern == SparsePattern::kMInference) Columns(t, head, kv_head, begin, num_rows);
    for (int r = 0; r < num_rows; ++r) {
      WriteRow(t.rows[r].state, p.kv.head_dim,
               p.out.data + int64_t{begin + r} * p.out.row_stride + int64_t{head} * p.kv.head_dim);
    }
  }

  HWY_ATTR void Begin(const WalkThread& t, int head, int begin, int num_rows) const {
    const size_t dim = p.kv.head_dim;
    for (int r = 0; r < num_rows; ++r) {
      t.rows[r] =
          TileRow{p.q.data + int64_t{begin + r} * p.q.row_stride + int64_t{head} * p.kv.head_dim};
      t.rows[r].state = t.states + r * StateFloats(dim);
      if constexpr (kKind == TileKind::kBf16Dot) {
        RowToBf16(t.rows[r].q, dim, t.q_pairs + r * (dim / 2));
        t.rows[r].q_pairs = t.q_pairs + r * (dim / 2);
      }
      ResetState(t.rows[r].state, dim);
    }
  }

  // Lists the rows that see any key of the tile, and counts the pairs.
  int RowsThatSee(const WalkThread& t, int num_rows, int begin, int key_begin,
                  const float* visible) const {
    int seeing = 0;
    for (int r = 0; r < num_rows; ++r) {
      TileRow row = t.rows[r];
      row.hi = std::min(kKvPageTokens, begin + r + 1 - key_begin);
      if (p.pattern == SparsePattern::kTriShape) row.lo = TriFirst(begin + r, key_begin);
      const int64_t pairs = visible == nullptr
                                ? row.hi - row.lo
                                : std::count(visible + row.lo, visible + row.hi, 1.0f);
      if (row.lo >= row.hi || pairs == 0) continue;
      *t.pairs += pairs;
      t.seeing[seeing++] = row;
    }
    return seeing;
  }

  // The chosen columns outside the covered diagonals, 64 at a time. All lie before the query block:
  // the nearest diagonals are always covered.
  HWY_ATTR void Columns(const WalkThread& t, int head, int kv_head, int begin, int num_rows) const {
    const float* covered = s.plan.Covered(head);
    const int32_t* columns = s.plan.Columns(head);
    int count = 0;
    const auto flush = [&]() HWY_ATTR {
      for (int r = 0; r < num_rows; ++r) t.rows[r].hi = count;
      *t.pairs += int64_t{num_rows} * count;
      AttendTile<kKind>(t.rows, num_rows, KvTile{t.k_gathered, t.v_gathered}, p.kv.head_dim,
                        p.scale * kLog2E);
      count = 0;
    };
    for (int i = 0; i < s.plan.column_counts[head] && columns[i] < begin; ++i) {
      if (covered[p.num_rows - 1 - begin + columns[i]] > 0) continue;
      Gather(t, kv_head, columns[i], count);
      if (++count == kKvPageTokens) flush();
    }
    if (count > 0) flush();
  }
};

void SparseWalk(const SparsePrefillParams& p, const SparseScratch& s, char* threads,
                ThreadPool& pool) {
  const int64_t spans = (p.num_rows + kKvPageTokens - 1) / kKvPageTokens;
  WithTileKind(p.kv, p.math, [&](auto kind) {
    const WalkTask<decltype(kind)::value> task{{p, s, threads}};
    pool.ParallelFor(spans * p.num_q_heads, std::ref(task));
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(SparseWalk);

size_t SparsePrefillScratchBytes(const SparsePrefillParams& shape, int num_threads, int max_len) {
  return SparseScratch::Of(shape, num_threads, max_len, nullptr).bytes +
         num_threads * WalkThread::Bytes(shape.kv);
}

void SparsePrefill(const SparsePrefillParams& params, Scratch scratch, ThreadPool& pool) {
  if (params.num_rows <= 0) return;
  const SparseScratch s =
      SparseScratch::Of(params, pool.num_threads(), params.num_rows, scratch.data);
  FindSparsePatterns(params, s, pool);
  const Walk walk{params, s, static_cast<char*>(scratch.data) + s.bytes};
  for (int i = 0; i < pool.num_threads(); ++i) *walk.Thread(i).pairs = 0;
  HWY_DYNAMIC_DISPATCH(SparseWalk)(params, s, walk.threads, pool);
  for (int i = 0; params.pairs_all_heads != nullptr && i < pool.num_threads(); ++i) {
    *params.pairs_all_heads += *walk.Thread(i).pairs;
  }
}

}  // namespace videonsa
#endif  // HWY_ONCE
