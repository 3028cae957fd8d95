#pragma once

#include <vector>

#include "kernels/reference/attention_case.h"
#include "kernels/reference/causal_nsa.h"

namespace videonsa::reference {

/// The choice of the released kernel's bitonic network (attention.md section 5).
///
/// scores[b] for blocks 0 .. own; returns n indices in the network's order, -1 = empty place.
std::vector<int> NetworkChoice(const std::vector<float>& scores, int n);

/// Smallest power of two >= block_count.
int KeptBlocks(int block_count);

/// Everything released_nsa computes for one row.
struct ReleasedRow {
  std::vector<double> o_cmp, o_slc, o_win;     ///< [64 slots * head_dim]
  std::vector<double> sparse_h, dense_h, out;  ///< [28 * head_dim]
  std::vector<std::vector<int>> blocks;        ///< per KV head, n places
  std::vector<std::vector<float>> scores;      ///< per KV head, blocks 0 .. own
  std::vector<double> margin;                  ///< per KV head; inf: all taken, 0: exact tie
  RowPairs pairs;                              ///< selected is left 0
  std::vector<int64_t> selected_pairs;         ///< per KV head
};

/// The released code's attention over one sequence, fp64 but for the scores (fp32 by definition).
///
/// Requires: 28 query heads, 4 KV heads, at least one vision row. The quirks of
/// kernels/nsa/README.md are in here.
class ReleasedNsa {
 public:
  explicit ReleasedNsa(const AttentionCase& c);

  /// Log-sum-exp of the compression branch, computed on demand.
  double Lse(int slot, int row);

  ReleasedRow Row(int row);
  /// With the choice given per KV head, where rounding may decide.
  ReleasedRow Row(int row, const std::vector<std::vector<int>>* forced_blocks);

  /// Replaces pooled keys [blocks, 4, head_dim] and lse [64, len] (goldens of the choice alone).
  void OverridePooledKeys(const std::vector<float>& k_cmp);
  void OverrideLse(const std::vector<float>& lse);

  /// Scores of blocks 0 .. own and the choice for one row and KV head.
  std::vector<float> Scores(int row, int kv_head);
  std::vector<int> Choose(const std::vector<float>& scores, double& margin) const;

  static int HeadOfSlot(int slot) { return slot < 56 ? slot % 28 : -1; }

 private:
  double LogitOfBlock(int row, int slot, int block) const;
  std::vector<double> DensePass(int row) const;
  std::vector<double> OverKeys(int row, int slot, const std::vector<int>& keys) const;

  const AttentionCase& c_;
  const int num_blocks_;
  std::vector<std::vector<double>> k_pooled_, v_pooled_;  // [block * 4 + kv_head]
  std::vector<double> lse_;                               // [64 * len], NaN = not yet computed
};

}  // namespace videonsa::reference
