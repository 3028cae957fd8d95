#pragma once

#include "kernels/cpu/nsa_span.h"

namespace videonsa {

/// What the selection and the window branch of a span read.
struct BranchArgs {
  NsaSpan span;
  PagedKv kv;
  float scale = 0;
  MathType math = MathType::kF32;
  /// [all positions] or null; keys marked 0 act as zero keys with zero values (released_nsa: text).
  const uint8_t* keep_keys = nullptr;
};

/// Softmax over positions (row - window, row], left in the rows' states.
void WindowAttention(const BranchArgs& args, int window);

/// Lists of chosen blocks of a span and room to turn them around.
///
/// Shapes: blocks  [num_tokens, stride]; any order; -1 = no block
///         first   [num_blocks + 2] room
///         tokens  [num_tokens * stride] room
struct BlockLists {
  const int32_t* blocks = nullptr;
  int stride = 0;
  int num_blocks = 0;  ///< blocks of the sequence; every listed one is below
  int32_t* first = nullptr;
  int32_t* tokens = nullptr;
};

/// Softmax over the positions <= row of the chosen blocks, left in the rows' states.
///
/// Goes block by block through the union of the lists and gathers the rows that chose the block, so
/// that a tile is read once for all of them; a row meets its blocks in ascending order.
void SelectedAttention(const BranchArgs& args, const BlockLists& lists);

/// out[row] = or += factor[row] * (the state's average), for every row of the span.
///
/// Shapes: outs, factors [num_rows]
void CombineBranch(const NsaSpan& span, float* const* outs, const float* factors, bool add);

/// Rounds the rows' queries to bf16 if the tile kernels will multiply pairs.
///
/// Shapes: q_pairs [num_rows, head_dim / 2] room
void PrepareQueries(const NsaSpan& span, const PagedKv& kv, MathType math, uint32_t* q_pairs);

}  // namespace videonsa
