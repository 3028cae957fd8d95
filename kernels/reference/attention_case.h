#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace videonsa::reference {

/// One sequence and one layer as plain arrays: what every oracle reads.
///
/// Shapes: q [len, num_q_heads, head_dim]; k, v [len, num_kv_heads, head_dim]
///         g [len, num_q_heads, 3] gate logits before the division by 0.3; may be empty
///         is_vision [len]; may be empty (all text)
struct AttentionCase {
  int len = 0;
  int num_q_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int block_count = 0;
  int window = 0;
  std::vector<float> q, k, v, g;
  std::vector<uint8_t> is_vision;

  const float* Q(int row, int head) const {
    return &q[(static_cast<size_t>(row) * num_q_heads + head) * head_dim];
  }
  const float* K(int row, int kv_head) const {
    return &k[(static_cast<size_t>(row) * num_kv_heads + kv_head) * head_dim];
  }
  const float* V(int row, int kv_head) const {
    return &v[(static_cast<size_t>(row) * num_kv_heads + kv_head) * head_dim];
  }
  double Scale() const;
};

/// Softmax average of values over listed keys; fp64. Empty list: zeros, lse = -inf.
struct SoftmaxResult {
  std::vector<double> out;
  double lse = 0;
};
SoftmaxResult SoftmaxOver(const std::vector<double>& logits,
                          const std::vector<std::vector<double>>& values, int head_dim);

/// Causal grouped-query attention of one row and head over keys [0, row], fp64.
std::vector<double> DenseRow(const AttentionCase& c, int row, int head);

/// The same over the listed keys only (ascending, all <= row).
std::vector<double> RowOverKeys(const AttentionCase& c, int row, int head,
                                const std::vector<int>& keys);

/// All rows and heads of DenseRow: [len, num_q_heads, head_dim].
std::vector<double> DenseAttention(const AttentionCase& c);

}  // namespace videonsa::reference
