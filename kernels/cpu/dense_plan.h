#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/attention/attention_params.h"
#include "kernels/cpu/tile_rows.h"

namespace videonsa {

/// What one thread needs for one task of dense prefill.
struct DenseThreadScratch {
  TileRow* rows = nullptr;
  float* states = nullptr;
  uint32_t* q_pairs = nullptr;
  int32_t* positions = nullptr;
  float** outs = nullptr;
};

/// How dense prefill is cut into tasks: spans of neighbouring tokens, anchored at position 0, times
/// KV heads. A span holds about 256 (token, head) rows, so that a K and V tile is read from the
/// second-level cache once per six rows and from memory once per span.
struct DensePlan {
  int group = 0;  ///< query heads per KV head
  int tokens_per_task = 0;
  int first_span = 0;
  int num_spans = 0;
  int head_dim = 0;
  size_t thread_bytes = 0;

  static constexpr int kRowsPerTask = 256;

  static DensePlan Of(int num_q_heads, int num_kv_heads, int head_dim, int row_begin, int row_end) {
    DensePlan plan;
    plan.group = num_q_heads / num_kv_heads;
    plan.tokens_per_task = kKvPageTokens;
    while (plan.tokens_per_task > 1 && plan.tokens_per_task * plan.group > kRowsPerTask) {
      plan.tokens_per_task /= 2;
    }
    plan.head_dim = head_dim;
    plan.first_span = row_begin / plan.tokens_per_task;
    plan.num_spans = (row_end + plan.tokens_per_task - 1) / plan.tokens_per_task - plan.first_span;
    ScratchCursor cursor(nullptr);
    plan.Take(cursor);
    plan.thread_bytes = cursor.used();
    return plan;
  }

  DenseThreadScratch ThreadScratch(Scratch scratch, int thread) const {
    ScratchCursor cursor(static_cast<char*>(scratch.data) + thread * thread_bytes);
    return Take(cursor);
  }

 private:
  DenseThreadScratch Take(ScratchCursor& cursor) const {
    const size_t rows = static_cast<size_t>(tokens_per_task) * group;
    DenseThreadScratch s;
    s.rows = cursor.Take<TileRow>(rows);
    s.states = cursor.Take<float>(rows * StateFloats(head_dim));
    s.q_pairs = cursor.Take<uint32_t>(rows * head_dim / 2);
    s.positions = cursor.Take<int32_t>(rows);
    s.outs = cursor.Take<float*>(rows);
    return s;
  }
};

}  // namespace videonsa
