#pragma once

#include <vector>

#include "kernels/reference/attention_case.h"

namespace videonsa::reference {

/// Query-key pairs of one row and one query head, counted key by key.
struct RowPairs {
  int64_t compressed = 0;
  int64_t selected = 0;
  int64_t window = 0;
  int64_t dense = 0;
};

/// Everything causal_nsa computes for one row; [num_q_heads * head_dim] each.
struct CausalRow {
  std::vector<double> o_cmp, o_slc, o_win, out;  ///< branches are zeros in text rows
  std::vector<std::vector<int>> blocks;          ///< per KV head, ascending; empty in text rows
  /// Per KV head: natural log of the last chosen earlier block's weight over the first one left
  /// out, which is their relative distance where they are close; +inf if nothing was left out.
  std::vector<double> margin;
  std::vector<std::vector<double>> log_weights;  ///< per KV head: log p_b, b before the own block
  std::vector<double> largest_logit;             ///< per KV head: of the compression branch
  RowPairs pairs;
};

/// Whether the choice of one KV head is the same whatever errors below `close` the logarithms of
/// its weights have; weights of blocks with the same keys stay equal.
bool ChoiceDecided(const AttentionCase& c, const CausalRow& row, int kv_head, double close);

/// causal_nsa of one row, fp64, term by term as in attention.md section 3.
CausalRow CausalNsaRow(const AttentionCase& c, int row);

/// The same with the choice given, one list per KV head, where rounding may decide.
CausalRow CausalNsaRow(const AttentionCase& c, int row,
                       const std::vector<std::vector<int>>* forced_blocks);

/// sigmoid(g / 0.3)
double Gate(double logit);

/// Mean of K (or V) over positions [begin, end), zeroed where keep is given and 0; divided by
/// end - begin.
std::vector<double> Pooled(const AttentionCase& c, bool values, int kv_head, int begin, int end,
                           const std::vector<uint8_t>* keep);

}  // namespace videonsa::reference
