#pragma once

#include <algorithm>

#include "kernels/cpu/dense_attention.h"
#include "kernels/cpu/nsa_thread.h"
#include "kernels/cpu/value_sums.h"

namespace videonsa {

/// Query heads of a released_nsa KV head: data slots 16, 16, 16, 8.
constexpr int ReleasedGroup(int kv_head) { return kv_head < 3 ? 16 : 8; }

/// Query head of a data slot.
constexpr int HeadOfSlot(int slot) { return slot % kReleasedHeads; }

/// Scratch of one released_nsa call.
struct ReleasedPlan {
  NsaThreadPlan thread;
  PooledTiles pooled;
  ValueSums sums;
  float* lse = nullptr;  // [64, len]
  char* threads = nullptr;
  Scratch dense;
  int kept = 0;
  size_t bytes = 0;

  static ReleasedPlan Of(int num_threads, const PagedKv& kv, int len, int selected_blocks,
                         void* scratch) {
    ReleasedPlan plan;
    plan.kept = 1;
    while (plan.kept < selected_blocks) plan.kept *= 2;
    const int num_blocks = (len + kKvPageTokens - 1) / kKvPageTokens;
    plan.thread = NsaThreadPlan::Of(kReleasedSlotsPerKvHead, kv.head_dim, plan.kept, num_blocks);
    ScratchCursor cursor(scratch);
    plan.pooled.num_blocks = num_blocks;
    plan.pooled.num_tiles = PooledTiles::TilesOf(num_blocks);
    plan.pooled.head_dim = kv.head_dim;
    const size_t floats = kv.num_kv_heads * plan.pooled.num_tiles * plan.pooled.tile_floats();
    plan.pooled.k = cursor.Take<float>(floats);
    plan.pooled.v = cursor.Take<float>(floats);
    const size_t doubles = ValueSums::Doubles(len, kv.num_kv_heads, kv.head_dim);
    plan.sums.all = cursor.Take<double>(doubles);
    plan.sums.kept = cursor.Take<double>(doubles);
    plan.sums.num_rows = len;
    plan.lse = cursor.Take<float>(size_t{kReleasedSlots} * len);
    plan.threads = cursor.Take<char>(num_threads * plan.thread.bytes);
    plan.dense.bytes =
        DensePrefillScratchBytes(num_threads, kReleasedHeads, kv.num_kv_heads, kv.head_dim);
    plan.dense.data = cursor.Take<char>(plan.dense.bytes);
    plan.bytes = cursor.used();
    return plan;
  }

  NsaThread Thread(int thread_idx) const {
    ScratchCursor cursor(threads + thread_idx * thread.bytes);
    return thread.Take(cursor);
  }
};

}  // namespace videonsa
