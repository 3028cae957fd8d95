#pragma once

#include <cstdint>

#include "kernels/attention/attention_params.h"

namespace videonsa {

/// The released code's slot layout (released_nsa is written for these shapes only).
inline constexpr int kReleasedHeads = 28;
inline constexpr int kReleasedKvHeads = 4;
inline constexpr int kReleasedSlots = 64;
inline constexpr int kReleasedSlotsPerKvHead = 16;
inline constexpr int kReleasedMaxBlocks = 32;

/// causal_nsa compares weights of blocks down to this one as they are. A row whose choice reaches
/// lower compares their logarithms, because fp32 soon ends there (each sum is at most 64).
inline constexpr float kLeastPlainWeight = 0x1p-90f;

/// Division of gate logits before the sigmoid.
inline constexpr float kGateTemperature = 0.3f;

/// Query-key pairs whose logit was computed for an output, one query head (attention.md section 6).
/// Integers, summed over the rows of one call.
struct NsaPairs {
  int64_t compressed = 0;
  int64_t selected = 0;
  int64_t window = 0;
  int64_t dense = 0;
};

/// What released_nsa selected, counted per KV head because its choices differ in size.
/// One query head's share is sum(selected[c] * data slots of c) / 28 (data slots 16, 16, 16, 8).
struct ReleasedPairs {
  int64_t compressed = 0;  ///< one copy of one head
  int64_t window = 0;      ///< one copy of one head
  int64_t dense = 0;       ///< per query head
  int64_t selected[kReleasedKvHeads] = {};
  /// Scores that overflowed fp32 and were saturated (quirk Q9).
  int64_t saturated_rows = 0;
};

/// Sums for reports; every pointer may be null. Added to, never cleared; doubles, so that a long
/// prompt loses nothing.
struct NsaReports {
  /// [num_blocks] selection weight: for every vision row, KV head and chosen earlier block, the
  /// block's score divided by the row's sum of chosen scores. A row without an earlier block adds
  /// its own block with weight 1. Rows of one KV head therefore add 1 in all.
  double* selection_weight = nullptr;
  /// [3] sum over vision rows and heads of the sigmoid gate: compression, selection, window.
  double* gate_sums = nullptr;
  /// Number of (vision row, head) pairs in gate_sums.
  int64_t* gate_count = nullptr;
};

/// Branch outputs before their gates, for tests and goldens; every pointer may be null.
struct NsaProbes {
  float* o_cmp = nullptr;  ///< [rows, heads, head_dim]
  float* o_slc = nullptr;
  float* o_win = nullptr;
  /// causal_nsa: [rows, num_kv_heads, selected_blocks] ascending, own block included, then -1.
  /// released_nsa: [rows, num_kv_heads, n] in the network's order, -1 = empty place.
  int32_t* blocks = nullptr;
  float* lse = nullptr;  ///< released_nsa: [64, rows], the compression branch
};

/// causal_nsa prefill of prompt rows [row_begin, row_end), one layer (attention.md section 3).
///
/// Shapes: q, out    [row_end - row_begin, num_q_heads * head_dim] fp32
///         gates     [row_end - row_begin, num_q_heads * 3] logits before the division by 0.3,
///                   head-major, branches compression, selection, window; vision rows only are read
///         is_vision [row_end - row_begin]; 1 = vision row, 0 = text row (dense)
/// Requires: the pages hold every position below row_end, with pooled rows of full pages;
///           num_q_heads % num_kv_heads == 0, num_q_heads / num_kv_heads <= 64;
///           selected_blocks >= 1, window >= 1.
/// A row's result does not depend on the chunk it came in (bitwise).
struct CausalNsaParams {
  PagedKv kv;
  ConstRows q;
  ConstRows gates;
  MutableRows out;
  const uint8_t* is_vision = nullptr;
  int num_q_heads = 0;
  int row_begin = 0;
  int row_end = 0;
  int selected_blocks = 0;
  int window = 0;
  float scale = 0;
  MathType math = MathType::kF32;
  NsaPairs* pairs = nullptr;  ///< added to; may be null
  NsaReports reports;
  NsaProbes probes;
};

/// First row of a prompt that needs no other row: scores of row i read the log-sum-exps at 64 i + p
/// of the flat [64, num_rows] array (quirk Q4), and from here on these are the zero slots' own.
constexpr int FirstFreeReleasedRow(int num_rows) {
  return static_cast<int>((int64_t{56} * num_rows + 63) / 64);
}

/// released_nsa over a whole prompt, one layer (attention.md section 4).
///
/// Shapes: q, out    [num_rows, 28 * head_dim] fp32
///         gates     [num_rows, 84] logits as above; vision rows only are read
///         is_vision [num_rows]; by position (coordinates not all equal)
/// Requires: num_q_heads 28, kv.num_kv_heads 4; the pages hold all num_rows positions (pooled rows
///           are not used); 1 <= selected_blocks <= 32 (the next power of two is kept).
/// Probes have rows = num_rows and heads = 64 slots; only vision rows and the averages of text rows
/// of the 56 data slots are written.
/// A prompt without vision rows is dense attention.
struct ReleasedNsaParams {
  PagedKv kv;
  ConstRows q;
  ConstRows gates;
  MutableRows out;
  const uint8_t* is_vision = nullptr;
  int num_rows = 0;
  int selected_blocks = 0;
  int window = 0;
  float scale = 0;
  MathType math = MathType::kF32;
  ReleasedPairs* pairs = nullptr;  ///< added to; may be null
  NsaReports reports;
  NsaProbes probes;
};

}  // namespace videonsa
