#pragma once

#include <algorithm>

#include "kernels/attention/attention_params.h"
#include "kernels/common/thread_pool.h"
#include "kernels/cpu/tile_rows.h"

namespace videonsa {

/// What the heads of a prompt see, as the tile walk reads it. Which members are set depends on the
/// pattern.
///
/// minference: a key at distance t = (first row of the query block) - key is inside a widened
/// diagonal if covered[len - 1 - t] is 1, for t in (-64, len); so one query block's mask of 64
/// neighbouring keys is 64 neighbouring floats.
struct SparsePlan {
  int len = 0;
  int num_q_heads = 0;
  // minference
  float* covered = nullptr;          // [num_q_heads, len + 64]
  int32_t* columns = nullptr;        // [num_q_heads, max_columns] ascending
  int32_t* column_counts = nullptr;  // [num_q_heads]
  int max_columns = 0;
  // flexprefill, xattention
  uint8_t* blocks = nullptr;  // [num_q_heads, num_blocks, num_blocks]
  int num_blocks = 0;

  float* Covered(int head) const { return covered + int64_t{head} * (len + kKvPageTokens); }
  int32_t* Columns(int head) const { return columns + int64_t{head} * max_columns; }
  uint8_t* Blocks(int head) const { return blocks + int64_t{head} * num_blocks * num_blocks; }
};

/// Room for finding one head's pattern.
struct PatternThread {
  TileRow* rows = nullptr;     // [128]
  float* folded = nullptr;     // [8, 16 * head_dim] folded queries
  float* weights = nullptr;    // [128, len rounded up to 64]
  double* vertical = nullptr;  // [len]
  double* slash = nullptr;     // [len]
  int32_t* order = nullptr;    // [max(len, num_blocks^2)]
  float* flat = nullptr;       // [num_blocks^2]
  double* pooled = nullptr;    // [2, num_blocks, head_dim]
};

/// Everything a SparsePrefill call keeps in its scratch.
struct SparseScratch {
  SparsePlan plan;
  float* folded_keys = nullptr;  // xattention: [num_kv_heads, tiles, 16 * head_dim, 64]
  int fold_tiles = 0;
  char* threads = nullptr;
  size_t thread_bytes = 0;
  size_t bytes = 0;

  static SparseScratch Of(const SparsePrefillParams& p, int num_threads, int len, void* scratch);
  PatternThread Pattern(int thread) const;

 private:
  PatternThread Take(ScratchCursor& cursor) const;
  int head_dim_ = 0;
  SparsePattern pattern_ = SparsePattern::kTriShape;
};

/// Fills `plan` for every head (nothing to do for tri_shape).
void FindSparsePatterns(const SparsePrefillParams& params, const SparseScratch& scratch,
                        ThreadPool& pool);

}  // namespace videonsa
