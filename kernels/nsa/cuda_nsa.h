#pragma once

#include "kernels/attention/paged_kv.h"
#include "kernels/common/cuda_launch.h"

/// Native sparse attention on CUDA: the semantics of nsa_params.h, pages as in
/// kernels/attention/cuda_attention.h.
namespace videonsa {

/// Sums kept on the device for reports and the attention account. Integers, so that their order
/// does not matter; added to, never cleared; every pointer may be null.
///
/// Pairs that depend on positions alone are for the host to count: a vision row at position i
/// scores (i + 1) / 64 compressed pairs (causal_nsa) or num_blocks - i / 64 (released_nsa),
/// min(window, i + 1) window pairs, and with causal_nsa
/// (min(selected_blocks, i / 64 + 1) - 1) * 64 + i % 64 + 1 selected pairs; a text row i + 1 dense
/// ones. What released_nsa selects is counted here.
struct CudaNsaTally {
  /// [num_kv_heads] pairs of the chosen blocks of vision rows, per query head of the KV head.
  unsigned long long* selected_pairs = nullptr;
  /// [1] (row, KV head) pairs of vision rows with a score that overflowed fp32 (quirk Q9).
  unsigned long long* saturated_rows = nullptr;
  /// [num_blocks] NsaReports::selection_weight in units of 2^-kCudaTallyShift.
  unsigned long long* selection_weight = nullptr;
  /// [3] NsaReports::gate_sums in units of 2^-kCudaTallyShift.
  unsigned long long* gate_sums = nullptr;
};
inline constexpr int kCudaTallyShift = 36;

/// Rows [begin, end) of a call, counted from its first row.
struct CudaRowRange {
  int begin = 0;
  int end = 0;
};

/// causal_nsa prefill of prompt rows [row_begin, row_end), one layer; text rows are dense.
///
/// Shapes: q, out    [row_end - row_begin, num_q_heads * head_dim] F32 or BF16
///         gates     [row_end - row_begin, num_q_heads * 3] fp32 logits before the division by 0.3,
///                   head-major, branches compression, selection, window; vision rows only are read
///         is_vision [row_end - row_begin] uint8
///         blocks    [row_end - row_begin, num_kv_heads, selected_blocks] int32 or null: the
///                   choice, ascending, own block included, then -1; text rows all -1
/// Requires: as CausalNsaParams; q and out do not overlap; selected_blocks <= 64; q's row stride a
///           multiple of 8 elements.
/// A row's result does not depend on the chunk it came in (bitwise).
struct CudaCausalNsaParams {
  PagedKv kv;
  CudaConstRows q;
  CudaRows out;
  const float* gates = nullptr;
  int64_t gates_stride = 0;
  const uint8_t* is_vision = nullptr;
  int num_q_heads = 0;
  int row_begin = 0;
  int row_end = 0;
  int selected_blocks = 0;
  int window = 0;
  float scale = 0;
  /// On the host: every text row lies in one of them. Null: text may be anywhere.
  const CudaRowRange* text = nullptr;
  int num_text = 0;
  int32_t* blocks = nullptr;
  CudaNsaTally tally;
  CudaScratch scratch;
};
size_t CudaCausalNsaScratchBytes(const PagedKv& kv, int num_q_heads, int max_rows, int max_len,
                                 int selected_blocks);
[[nodiscard]] CudaStatus LaunchCausalNsa(const CudaCausalNsaParams& params, CudaStream stream);

/// released_nsa over a whole prompt with at least one vision row, one layer.
///
/// Shapes, where rows are those from row_begin on:
///         q, out    [rows, 28 * head_dim] F32 or BF16
///         gates     [rows, 84] fp32 logits; vision rows only are read
///         is_vision [num_rows] uint8
///         blocks    [rows, 4, n] int32 or null, n the next power of two of selected_blocks:
///                   the choice in the network's order, -1 = empty place
/// Requires: as ReleasedNsaParams; q's row stride a multiple of 8 elements; row_begin 0 or at least
///           FirstFreeReleasedRow(num_rows). A prompt without vision rows is for LaunchDensePrefill.
struct CudaReleasedNsaParams {
  PagedKv kv;
  CudaConstRows q;
  CudaRows out;
  const float* gates = nullptr;
  int64_t gates_stride = 0;
  const uint8_t* is_vision = nullptr;
  const CudaRowRange* text = nullptr;  ///< as in CudaCausalNsaParams
  int num_text = 0;
  int row_begin = 0;
  int num_rows = 0;
  int selected_blocks = 0;
  int window = 0;
  float scale = 0;
  int32_t* blocks = nullptr;
  CudaNsaTally tally;
  CudaScratch scratch;
};
size_t CudaReleasedNsaScratchBytes(const PagedKv& kv, int max_len, int selected_blocks);
[[nodiscard]] CudaStatus LaunchReleasedNsa(const CudaReleasedNsaParams& params, CudaStream stream);

}  // namespace videonsa
