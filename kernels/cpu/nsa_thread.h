#pragma once

#include <algorithm>

#include "kernels/cpu/compressed_attention.h"
#include "kernels/cpu/nsa_span.h"
#include "kernels/nsa/nsa_params.h"

namespace videonsa {

/// What one thread needs to run the branches of one span, and what it counts on the way.
struct NsaThread {
  TileRow* rows = nullptr;
  TileRow* gathered = nullptr;
  float* states = nullptr;
  uint32_t* q_pairs = nullptr;
  int32_t* positions = nullptr;
  float** outs = nullptr;
  float** probe_outs = nullptr;
  float* factors = nullptr;  // [3, rows] gates by branch
  float* ones = nullptr;
  int32_t* blocks = nullptr;           // [tokens, kept]
  int32_t* block_first = nullptr;      // [num_blocks + 2]
  int32_t* block_tokens = nullptr;     // [tokens * kept]
  float* weights = nullptr;            // [compressed tokens * group, tile-rounded blocks]
  float* importance = nullptr;         // [compressed tokens, tile-rounded blocks]
  float* kept_weights = nullptr;       // [kept]
  double* selection_weight = nullptr;  // [num_blocks], cleared at the start of a call
  NsaPairs* pairs = nullptr;
  ReleasedPairs* released = nullptr;
  double* gate_sums = nullptr;  // [3]
  int64_t* gate_count = nullptr;
};

/// Sizes of a span and of its thread scratch.
struct NsaThreadPlan {
  int tokens = 0;  ///< positions per span, a power of two, anchored at position 0
  int group = 0;
  int head_dim = 0;
  int kept = 0;
  int num_blocks = 0;
  size_t bytes = 0;

  // States of a span stay in the second-level cache beside the tiles; wide spans let more rows
  // share a tile.
  static constexpr size_t kStateBytes = 400 << 10;
  static constexpr int kMaxTokens = 256;
  /// Tokens whose scores are kept at a time: as many as the choice network takes.
  static constexpr int kScoredTokens = 24;

  static NsaThreadPlan Of(int group, int head_dim, int kept, int num_blocks) {
    NsaThreadPlan plan;
    plan.group = group;
    plan.head_dim = head_dim;
    plan.kept = kept;
    plan.num_blocks = num_blocks;
    plan.tokens = kMaxTokens;
    while (plan.tokens > 1 &&
           plan.tokens * group * StateFloats(head_dim) * sizeof(float) > kStateBytes) {
      plan.tokens /= 2;
    }
    ScratchCursor cursor(nullptr);
    plan.Take(cursor);
    plan.bytes = cursor.used();
    return plan;
  }

  NsaThread Take(ScratchCursor& cursor) const {
    const size_t num_rows = static_cast<size_t>(tokens) * group;
    const size_t stride = static_cast<size_t>(PooledTiles::TilesOf(num_blocks)) * kKvPageTokens;
    const size_t compressed = CompressedTokens(group);
    NsaThread t;
    t.rows = cursor.Take<TileRow>(num_rows);
    t.gathered = cursor.Take<TileRow>(num_rows);
    t.states = cursor.Take<float>(num_rows * StateFloats(head_dim));
    t.q_pairs = cursor.Take<uint32_t>(num_rows * head_dim / 2);
    t.positions = cursor.Take<int32_t>(tokens);
    t.outs = cursor.Take<float*>(num_rows);
    t.probe_outs = cursor.Take<float*>(num_rows);
    t.factors = cursor.Take<float>(3 * num_rows);
    t.ones = cursor.Take<float>(num_rows);
    t.blocks = cursor.Take<int32_t>(static_cast<size_t>(tokens) * kept);
    t.block_first = cursor.Take<int32_t>(num_blocks + 2);
    t.block_tokens = cursor.Take<int32_t>(static_cast<size_t>(tokens) * kept);
    t.weights = cursor.Take<float>(compressed * group * stride);
    t.importance = cursor.Take<float>(kScoredTokens * stride);
    t.kept_weights = cursor.Take<float>(kept);
    t.selection_weight = cursor.Take<double>(num_blocks);
    t.pairs = cursor.Take<NsaPairs>(1);
    t.released = cursor.Take<ReleasedPairs>(1);
    t.gate_sums = cursor.Take<double>(3);
    t.gate_count = cursor.Take<int64_t>(1);
    return t;
  }
};

}  // namespace videonsa
