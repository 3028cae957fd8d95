#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention/paged_kv.h"
#include "kernels/attention/sparse_params.h"

namespace videonsa {

/// Arithmetic inside the products q k and p v. Softmax and sums are fp32 in both.
enum class MathType : uint8_t {
  kF32,   ///< operands widened to fp32
  kBF16,  ///< q and p may be rounded to bf16 where the machine multiplies bf16 pairs; BF16 pages
          ///< only
};

/// Memory lent to a kernel for one call; its content means nothing before and after.
///
/// Requires: 64-byte aligned; at least the bytes that the kernel's query function names.
struct Scratch {
  void* data = nullptr;
  size_t bytes = 0;
};

/// Rows of activations: row r of head h starts at data + r * row_stride + h * head_dim.
struct ConstRows {
  const float* data = nullptr;
  int64_t row_stride = 0;  ///< in floats
};
struct MutableRows {
  float* data = nullptr;
  int64_t row_stride = 0;  ///< in floats
};

/// New tokens of one sequence on their way into its pages.
///
/// Shapes: k, v [num_tokens, num_kv_heads * head_dim] fp32; row r is position token_begin + r
/// Pages that become full get their pooled rows; the pooled rows are means of what the page stores.
struct KvAppendParams {
  PagedKv kv;
  ConstRows k;
  ConstRows v;
  int token_begin = 0;
  int num_tokens = 0;
};

/// Causal grouped-query attention of prompt rows [row_begin, row_end) over keys [0, row].
///
/// Shapes: q, out [row_end - row_begin, num_q_heads * head_dim] fp32; row r is position
///         row_begin + r
///         skip_rows [row_end - row_begin] or null; rows marked 1 are neither read nor written
/// Requires: the pages hold every position below row_end; num_q_heads % num_kv_heads == 0 (head h
///         uses KV head h * num_kv_heads / num_q_heads); out does not overlap q.
/// A row's result does not depend on the chunk it came in (bitwise).
struct DensePrefillParams {
  PagedKv kv;
  ConstRows q;
  MutableRows out;
  const uint8_t* skip_rows = nullptr;
  int num_q_heads = 0;
  int row_begin = 0;
  int row_end = 0;
  float scale = 0;  ///< multiplies logits; 1 / sqrt(head_dim)
  MathType math = MathType::kF32;
};

/// Attention of one new row for each of several sequences over its whole cache.
///
/// Shapes: q, out [num_seqs, num_q_heads * head_dim] fp32
///         page_tables [num_seqs] pointers to page ids (kv.page_ids is not used)
///         kv_lens [num_seqs]; keys [0, kv_len), the row's own included; 0 gives a zero row
/// A row's result does not depend on its batch mates (bitwise).
struct DecodeParams {
  PagedKv kv;
  ConstRows q;
  MutableRows out;
  const int32_t* const* page_tables = nullptr;
  const int32_t* kv_lens = nullptr;
  int num_seqs = 0;
  int num_q_heads = 0;
  float scale = 0;
  MathType math = MathType::kF32;
};

/// Softmax mass by block of a few prompt rows: what those rows looked at.
///
/// Adds, for each row r of [row_begin, row_end) and each query head, the softmax weight (summing to
/// 1 over keys [0, r]) of every block of 64 keys to mass[block]. Rows marked in skip_rows are left
/// out.
/// Shapes: q as in DensePrefillParams; mass [ceil(row_end / 64)]
struct AttentionMassParams {
  PagedKv kv;
  ConstRows q;
  const uint8_t* skip_rows = nullptr;
  int num_q_heads = 0;
  int row_begin = 0;
  int row_end = 0;
  float scale = 0;
  double* mass = nullptr;
};

/// Prefill of a whole prompt under a sparse pattern; all rows, one layer.
///
/// Shapes: q, out [num_rows, num_q_heads * head_dim] fp32, row r is position r
struct SparsePrefillParams {
  PagedKv kv;
  ConstRows q;
  MutableRows out;
  SparsePattern pattern = SparsePattern::kTriShape;
  SparseSettings settings;
  int num_q_heads = 0;
  int num_rows = 0;
  float scale = 0;
  MathType math = MathType::kF32;
  /// Pairs scored for an output, summed over query heads; added to, may be null.
  int64_t* pairs_all_heads = nullptr;
};

}  // namespace videonsa
