#pragma once

#include "kernels/attention/paged_kv.h"
#include "kernels/common/cuda_launch.h"

/// Dense attention over paged K and V on CUDA.
///
/// PagedKv is used with device pointers and with this layout, for F32 and BF16 alike:
///   k_pages, v_pages [num_pages, num_kv_heads, 64, head_dim] row major
///   k_pooled, v_pooled [num_pages, num_kv_heads, head_dim] fp32
/// so a page has the bytes of KvPageBytes. BF16 pages: products on the tensor cores (q and softmax
/// weights rounded to bf16), sums and softmax fp32. F32 pages: everything fp32 (the exact mode).
/// q and out are F32 or BF16 in both.
///
/// Requires everywhere: head_dim 16, 32, 64, 80 or 128; num_q_heads % num_kv_heads == 0 with a
/// ratio of at most 16; rows of q, out and pages on 16-byte borders.
///
/// Pairs are not counted on the device: a dense row at position i scores i + 1 keys.
namespace videonsa {

/// Writes new rows into the pages and makes the pooled rows of pages that become full.
///
/// One sequence (prefill): page_tables is null; row r is position token_begin + r of the sequence
/// with kv.page_ids. Several sequences (decode): row r is position kv_lens[r] - 1 of the sequence
/// with page ids page_tables + r * table_stride; a kv_len of 0 skips the row.
/// Shapes: k, v [num_rows, num_kv_heads * head_dim] F32 or BF16, k after rotation;
///         page_tables [num_rows, table_stride] int32; kv_lens [num_rows] int32
/// Pooled rows are means of what the page stores; kv.k_pooled may be null (none are made).
struct CudaKvAppendParams {
  PagedKv kv;
  CudaConstRows k;
  CudaConstRows v;
  int num_rows = 0;
  int token_begin = 0;
  const int32_t* page_tables = nullptr;
  int64_t table_stride = 0;
  const int32_t* kv_lens = nullptr;
};
[[nodiscard]] CudaStatus LaunchKvAppend(const CudaKvAppendParams& params, CudaStream stream);

/// Causal grouped-query attention of rows [row_begin, row_end) of one sequence over keys [0, row].
///
/// Shapes: q, out [row_end - row_begin, num_q_heads * head_dim]; row r is position row_begin + r
///         skip_rows [row_end - row_begin] uint8 or null; rows marked 1 are neither read nor
///         written
/// split_keys: for few rows that see many keys. Keys are cut into runs of kDenseRunKeys, which are
///         weighed side by side and joined in order.
/// Requires: the pages hold every position below row_end; out does not overlap q; with split_keys
///           scratch of CudaDenseSplitScratchBytes.
/// A row's result does not depend on the chunk it came in (bitwise), but for rows that see more
/// than kDenseRunKeys keys it depends on split_keys.
inline constexpr int kDenseRunKeys = 4096;
struct CudaDensePrefillParams {
  PagedKv kv;
  CudaConstRows q;
  CudaRows out;
  const uint8_t* skip_rows = nullptr;
  int num_q_heads = 0;
  int row_begin = 0;
  int row_end = 0;
  float scale = 0;
  bool split_keys = false;
  CudaScratch scratch;
};
size_t CudaDenseSplitScratchBytes(int num_q_heads, int head_dim, int max_len);
[[nodiscard]] CudaStatus LaunchDensePrefill(const CudaDensePrefillParams& params,
                                            CudaStream stream);

/// Attention of one new row for each of several sequences over its whole cache.
///
/// Shapes: q, out [num_seqs, num_q_heads * head_dim]; page_tables [num_seqs, table_stride] int32;
///         kv_lens [num_seqs] int32, the row's own key included; 0 gives a zero row
/// Units:  max_kv_len: no kv_len is greater; it sizes the launch and nothing else.
/// A row's result does not depend on its batch mates or on max_kv_len (bitwise): keys are cut into
/// runs of a fixed number of pages, joined in order.
struct CudaDecodeParams {
  PagedKv kv;  ///< page_ids unused
  CudaConstRows q;
  CudaRows out;
  const int32_t* page_tables = nullptr;
  int64_t table_stride = 0;
  const int32_t* kv_lens = nullptr;
  int num_seqs = 0;
  int max_kv_len = 0;
  int num_q_heads = 0;
  float scale = 0;
  CudaScratch scratch;
};
size_t CudaDecodeScratchBytes(int num_seqs, int max_kv_len, int num_q_heads, int head_dim);
[[nodiscard]] CudaStatus LaunchDecode(const CudaDecodeParams& params, CudaStream stream);

/// Softmax mass by block of a few prompt rows (AttentionMassParams): adds, for each row of
/// [row_begin, row_end) not skipped and each query head, the weight of every block of 64 keys.
///
/// Shapes: q [row_end - row_begin, num_q_heads * head_dim]; mass [ceil(row_end / 64)] double
/// Added to, never cleared; the order of additions is fixed.
struct CudaAttentionMassParams {
  PagedKv kv;
  CudaConstRows q;
  const uint8_t* skip_rows = nullptr;
  int num_q_heads = 0;
  int row_begin = 0;
  int row_end = 0;
  float scale = 0;
  double* mass = nullptr;
  CudaScratch scratch;
};
size_t CudaAttentionMassScratchBytes(int num_rows, int max_kv_len, int num_q_heads);
[[nodiscard]] CudaStatus LaunchAttentionMass(const CudaAttentionMassParams& params,
                                             CudaStream stream);

}  // namespace videonsa
