#include "kernels/reference/attention_case.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace videonsa::reference {

double AttentionCase::Scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }

SoftmaxResult SoftmaxOver(const std::vector<double>& logits,
                          const std::vector<std::vector<double>>& values, int head_dim) {
  SoftmaxResult result{std::vector<double>(head_dim, 0.0),
                       -std::numeric_limits<double>::infinity()};
  if (logits.empty()) return result;
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (size_t j = 0; j < logits.size(); ++j) {
    const double p = std::exp(logits[j] - top);
    sum += p;
    for (int d = 0; d < head_dim; ++d) result.out[d] += p * values[j][d];
  }
  for (double& x : result.out) x /= sum;
  result.lse = top + std::log(sum);
  return result;
}

std::vector<double> RowOverKeys(const AttentionCase& c, int row, int head,
                                const std::vector<int>& keys) {
  const int kv_head = head * c.num_kv_heads / c.num_q_heads;
  std::vector<double> logits;
  std::vector<std::vector<double>> values;
  for (int key : keys) {
    double dot = 0;
    for (int d = 0; d < c.head_dim; ++d) {
      dot += static_cast<double>(c.Q(row, head)[d]) * c.K(key, kv_head)[d];
    }
    logits.push_back(dot * c.Scale());
    values.emplace_back(c.V(key, kv_head), c.V(key, kv_head) + c.head_dim);
  }
  return SoftmaxOver(logits, values, c.head_dim).out;
}

std::vector<double> DenseRow(const AttentionCase& c, int row, int head) {
  std::vector<int> keys;
  for (int key = 0; key <= row; ++key) keys.push_back(key);
  return RowOverKeys(c, row, head, keys);
}

std::vector<double> DenseAttention(const AttentionCase& c) {
  std::vector<double> out;
  for (int row = 0; row < c.len; ++row) {
    for (int head = 0; head < c.num_q_heads; ++head) {
      const std::vector<double> one = DenseRow(c, row, head);
      out.insert(out.end(), one.begin(), one.end());
    }
  }
  return out;
}

}  // namespace videonsa::reference
