#pragma once

#include "kernels/attention/cuda_attention.h"
#include "kernels/nsa/branch_rows.cuh"
#include "kernels/nsa/cuda_nsa.h"

/// The stages that causal_nsa and released_nsa are made of. T is the element type of the pages.
namespace videonsa::cuda {

inline constexpr int kReleasedSlotsOnDevice = 64;

/// Blocks rounded up to whole tiles of 64: the stride of block means and scores.
constexpr int BlocksStride(int len) {
  const int blocks = (len + kTileKeys - 1) / kTileKeys;
  return (blocks + kTileKeys - 1) / kTileKeys * kTileKeys;
}

/// Rows whose scores are held at a time: a buffer of a quarter of a GiB.
constexpr int ScoreRows(int num_kv_heads, int blocks_stride, int rows) {
  const int64_t fit = (int64_t{1} << 28) / (int64_t{num_kv_heads} * blocks_stride * 4) / 64 * 64;
  return static_cast<int>(std::max<int64_t>(64, std::min<int64_t>(fit, rows)));
}

/// Block means of a sequence as dense matrices.
///
/// Shapes: k, v [num_kv_heads, blocks_stride, head_dim]
/// From the pages' pooled rows (full blocks only), or, with `keep`, made here over the kept keys of
/// all blocks and divided by the block's true length (quirks Q2, Q8).
template <typename T>
struct BlockMeans {
  PagedKv kv;
  T* k = nullptr;
  T* v = nullptr;
  int len = 0;
  int blocks_stride = 0;
  const uint8_t* keep = nullptr;
};
template <typename T>
cudaError_t LaunchBlockMeans(const BlockMeans<T>& means, cudaStream_t stream);

/// Branches over PagedRows filled by the caller; KV heads kv_first, kv_first + kv_step, ...
template <typename T>
cudaError_t LaunchCompressed(const CompressedPolicy<T>& policy, int num_kv, float scale,
                             cudaStream_t stream);
template <typename T>
cudaError_t LaunchSelected(const SelectedPolicy<T>& policy, int num_kv, float scale,
                           cudaStream_t stream);
template <typename T>
cudaError_t LaunchWindow(const WindowPolicy<T>& policy, int num_kv, float scale,
                         cudaStream_t stream);

/// Selected attention the other way round: a CTA keeps one block of keys and values and passes the
/// rows that chose it by; every (row, block) leaves a partial result that is joined afterwards in
/// the order of the row's list. Keys are read once a block instead of once a tile of rows, whatever
/// the rows agree on. `policy` as for LaunchSelected, BF16 only.
cudaError_t LaunchGathered(const SelectedPolicy<__nv_bfloat16>& policy, int num_kv, float scale,
                           CudaScratch scratch, cudaStream_t stream);
/// Bytes for `rows` rows, `num_kv` KV heads at a time and up to `group` query heads each.
size_t GatheredScratchBytes(int rows, int len, int num_kv, int group, int count, int head_dim);

/// The faster of the two for the element type.
template <typename T>
cudaError_t LaunchSelection(const SelectedPolicy<T>& policy, int num_kv, float scale,
                            CudaScratch scratch, cudaStream_t stream) {
  if constexpr (sizeof(T) == 4) {
    return LaunchSelected(policy, num_kv, scale, stream);
  } else {
    return LaunchGathered(policy, num_kv, scale, scratch, stream);
  }
}

/// Scores of blocks for rows [begin, end) of a call: for every KV head the sum over its query
/// heads (or 16 slots) of exp(logit - lse); with `steep` given, log2 of that sum, finite, for the
/// rows and KV heads marked there (causal_nsa only).
///
/// Shapes: k_means as above; scores [end - begin, num_kv_heads, blocks_stride] fp32: blocks before
///         the own one are valid afterwards
///         steep [end - begin, num_kv_heads] or null
///         lse2: causal_nsa [rows of the call, num_q_heads] of the row itself; released_nsa a flat
///         array of which row i, slot p reads element 64 i + p (quirk Q4)
template <typename T>
struct BlockScores {
  const T* k_means = nullptr;
  int num_kv_heads = 0;
  int head_dim = 0;
  int blocks_stride = 0;
  DeviceRows q;
  int num_q_heads = 0;
  HeadMap heads = HeadMap::kGroups;
  const uint8_t* only = nullptr;         ///< rows marked 0 are left out
  const uint8_t* zero_unless = nullptr;  ///< rows marked 0 have a zero query
  const float* lse2 = nullptr;
  /// The largest logits behind lse2, for the fp32 body or null: a head's weight of the block that
  /// takes all of it is then exactly 1, so that two such blocks are equal however they are rounded.
  const float* top2 = nullptr;
  int row_begin = 0;  ///< position of row 0 of the call
  int begin = 0;
  int end = 0;
  float scale = 0;
  float* scores = nullptr;
  const uint8_t* steep = nullptr;
};
template <typename T>
cudaError_t LaunchBlockScores(const BlockScores<T>& args, cudaStream_t stream);

/// The choice from scores, rows [begin, end) of a call.
///
/// Shapes: scores as above; blocks [rows of the call, num_kv_heads, count] int32
///         steep [end - begin, num_kv_heads] or null (causal_nsa only)
struct BlockChoice {
  const float* scores = nullptr;
  int blocks_stride = 0;
  int num_kv_heads = 0;
  const uint8_t* only = nullptr;       ///< rows marked 0 choose nothing (-1)
  const uint8_t* is_vision = nullptr;  ///< rows that are counted; null: all that choose
  int row_begin = 0;
  int begin = 0;
  int end = 0;
  int count = 0;
  int32_t* blocks = nullptr;
  CudaNsaTally tally;
  uint8_t* steep = nullptr;
  bool logs = false;
};
/// causal_nsa: the own block and the count - 1 heaviest earlier ones, ties to the lower index;
/// ascending, then -1. With `steep`, rows whose choice reaches weights below kLeastPlainWeight are
/// marked there and neither chosen for nor counted. With `logs`, only rows marked in `steep` are
/// chosen for, and their scores are logarithms.
cudaError_t LaunchCausalChoice(const BlockChoice& choice, cudaStream_t stream);
/// Scores and choice of causal_nsa: all rows by their weights, then the steep ones by logarithms.
/// Shapes: steep [end - begin, num_kv_heads] scratch
template <typename T>
cudaError_t LaunchScoredChoice(BlockScores<T> scores, BlockChoice choice, uint8_t* steep,
                               cudaStream_t stream) {
  choice.steep = steep;
  cudaError_t status = LaunchBlockScores(scores, stream);
  if (status == cudaSuccess) status = LaunchCausalChoice(choice, stream);
  scores.steep = steep;
  choice.logs = true;
  if (status == cudaSuccess) status = LaunchBlockScores(scores, stream);
  if (status == cudaSuccess) status = LaunchCausalChoice(choice, stream);
  return status;
}
/// released_nsa: the bitonic network of attention.md section 5 (quirks Q5, Q11), count <= 32.
cudaError_t LaunchNetworkChoice(const BlockChoice& choice, cudaStream_t stream);

/// Dense attention of the text rows of a call, whose `dense` has its rows and what marks the
/// others.
cudaError_t LaunchTextRows(const CudaDensePrefillParams& dense, const CudaRowRange* text,
                           int num_text, cudaStream_t stream);

/// Sums of the gates of vision rows, in tally units.
cudaError_t LaunchGateSums(const float* gates, int64_t stride, const uint8_t* is_vision, int rows,
                           int num_heads, unsigned long long* sums, cudaStream_t stream);

}  // namespace videonsa::cuda
