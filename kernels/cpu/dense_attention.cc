#include "kernels/cpu/dense_attention.h"

#include <algorithm>
#include <functional>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dense_attention.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/dense_plan.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

// One task: the rows of `tokens_per_task` neighbouring positions and one KV head.
template <TileKind kKind>
struct DenseTask {
  const DensePrefillParams& p;
  const DensePlan& plan;
  Scratch scratch;

  HWY_ATTR void operator()(int64_t task, int thread) const {
    // Longest rows first, so that the last tasks to finish are short ones.
    const int span = plan.num_spans - 1 - static_cast<int>(task / p.kv.num_kv_heads);
    const int kv_head = static_cast<int>(task % p.kv.num_kv_heads);
    const int begin = std::max(p.row_begin, (plan.first_span + span) * plan.tokens_per_task);
    const int end = std::min(p.row_end, (plan.first_span + span + 1) * plan.tokens_per_task);
    const DenseThreadScratch mine = plan.ThreadScratch(scratch, thread);
    const int num_rows = Begin(begin, end, kv_head, mine);
    if (num_rows == 0) return;
    const size_t head_dim = p.kv.head_dim;
    const float log2_scale = p.scale * kLog2E;
    for (int block = 0; block * kKvPageTokens < end; ++block) {
      const int key_begin = block * kKvPageTokens;
      const bool masked = key_begin + kKvPageTokens > begin + 1;
      int first = 0;
      if (masked) {
        for (int r = 0; r < num_rows; ++r) {
          mine.rows[r].hi = std::min(mine.positions[r] + 1 - key_begin, kKvPageTokens);
        }
        while (first < num_rows && mine.rows[first].hi <= 0) ++first;
      }
      AttendTile<kKind>(mine.rows + first, num_rows - first,
                        TileOf(p.kv, p.kv.page_ids, block, kv_head), head_dim, log2_scale);
    }
    for (int r = 0; r < num_rows; ++r) WriteRow(mine.rows[r].state, head_dim, mine.outs[r]);
  }

  HWY_ATTR int Begin(int begin, int end, int kv_head, const DenseThreadScratch& mine) const {
    const size_t head_dim = p.kv.head_dim;
    int num_rows = 0;
    for (int position = begin; position < end; ++position) {
      const int64_t row = position - p.row_begin;
      if (p.skip_rows != nullptr && p.skip_rows[row]) continue;
      for (int i = 0; i < plan.group; ++i, ++num_rows) {
        const int64_t head = int64_t{kv_head} * plan.group + i;
        TileRow& r = mine.rows[num_rows];
        r = TileRow{p.q.data + row * p.q.row_stride + head * static_cast<int64_t>(head_dim)};
        r.state = mine.states + num_rows * StateFloats(head_dim);
        mine.positions[num_rows] = position;
        mine.outs[num_rows] =
            p.out.data + row * p.out.row_stride + head * static_cast<int64_t>(head_dim);
        if constexpr (kKind == TileKind::kBf16Dot) {
          uint32_t* q_pairs = mine.q_pairs + num_rows * (head_dim / 2);
          RowToBf16(r.q, head_dim, q_pairs);
          r.q_pairs = q_pairs;
        }
        ResetState(r.state, head_dim);
      }
    }
    return num_rows;
  }
};

void DensePrefillT(const DensePrefillParams& p, Scratch scratch, ThreadPool& pool) {
  const DensePlan plan =
      DensePlan::Of(p.num_q_heads, p.kv.num_kv_heads, p.kv.head_dim, p.row_begin, p.row_end);
  WithTileKind(p.kv, p.math, [&](auto kind) {
    const DenseTask<decltype(kind)::value> task{p, plan, scratch};
    pool.ParallelFor(int64_t{plan.num_spans} * p.kv.num_kv_heads, std::ref(task));
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(DensePrefillT);

size_t DensePrefillScratchBytes(int num_threads, int num_q_heads, int num_kv_heads, int head_dim) {
  const DensePlan plan = DensePlan::Of(num_q_heads, num_kv_heads, head_dim, 0, 0);
  return plan.thread_bytes * num_threads;
}

void DensePrefill(const DensePrefillParams& params, Scratch scratch, ThreadPool& pool) {
  if (params.row_end <= params.row_begin) return;
  HWY_DYNAMIC_DISPATCH(DensePrefillT)(params, scratch, pool);
}

}  // namespace videonsa
#endif  // HWY_ONCE
