#pragma once

#include <cstdint>

namespace videonsa {

/// Block-sparse patterns for dense checkpoints, chosen without training. Defined here, in our own
/// words, after the published methods (kernels/attention/README.md); each query head has its own.
enum class SparsePattern : uint8_t { kTriShape, kMInference, kFlexPrefill, kXAttention };

/// Settings of the patterns; the defaults are the published ones.
struct SparseSettings {
  // tri_shape: the first tri_init keys and the last tri_local keys of every row; the last tri_last
  // rows see everything.
  int tri_init = 128;  ///< a multiple of 64
  int tri_local = 3968;
  int tri_last = 100;
  // minference: columns and diagonals that the last 64 rows look at most. One budget for all heads
  // (the most frequent one of the published per-head table, which was searched offline).
  int vertical = 1000;
  int slash = 6096;
  // flexprefill: shares of the attention of the last 128 rows to be covered.
  double flex_gamma = 0.9;
  double flex_tau = 0.1;
  int flex_min_blocks = 1;
  // xattention: folded rows and keys; share of the folded attention to be covered.
  double x_threshold = 0.9;
};

/// Rows that are looked at to find columns and diagonals, and what is always kept (minference).
inline constexpr int kMInferenceRows = 64;
inline constexpr int kMInferenceForcedColumns = 30;
inline constexpr int kMInferenceForcedDiagonals = 100;
/// Block edge of flexprefill and xattention in tokens; flexprefill looks at as many last rows.
inline constexpr int kSparseBlock = 128;
/// Tokens folded into one by xattention.
inline constexpr int kFoldTokens = 16;

}  // namespace videonsa
