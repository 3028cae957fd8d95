#include "kernels/reference/causal_nsa.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/attention/paged_kv.h"

namespace videonsa::reference {
namespace {

constexpr int kBlock = kKvPageTokens;

double Dot(const float* a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t d = 0; d < b.size(); ++d) sum += a[d] * b[d];
  return sum;
}

struct Compression {
  // [blocks before the own one] log of the weights' sum over the KV head's heads: powers end at
  // 1e-308 in fp64 too.
  std::vector<double> log_weights;
  double largest_logit = 0;
};

double LogOfSum(double a, double b) {
  const double top = std::max(a, b);
  return std::isinf(top) ? top : top + std::log1p(std::exp(std::min(a, b) - top));
}

Compression Compress(const AttentionCase& c, int row, int kv_head, std::vector<double>& out) {
  const int group = c.num_q_heads / c.num_kv_heads;
  const int own = row / kBlock;
  std::vector<std::vector<double>> keys, values;
  for (int b = 0; (b + 1) * kBlock - 1 <= row; ++b) {
    keys.push_back(Pooled(c, false, kv_head, b * kBlock, (b + 1) * kBlock, nullptr));
    values.push_back(Pooled(c, true, kv_head, b * kBlock, (b + 1) * kBlock, nullptr));
  }
  Compression result;
  result.log_weights.assign(own, -std::numeric_limits<double>::infinity());
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    std::vector<double> logits;
    for (const std::vector<double>& key : keys) {
      logits.push_back(c.Scale() * Dot(c.Q(row, head), key));
      result.largest_logit = std::max(result.largest_logit, std::abs(logits.back()));
    }
    const SoftmaxResult softmax = SoftmaxOver(logits, values, c.head_dim);
    std::copy(softmax.out.begin(), softmax.out.end(), out.begin() + head * c.head_dim);
    for (int b = 0; b < own; ++b) {
      result.log_weights[b] = LogOfSum(result.log_weights[b], logits[b] - softmax.lse);
    }
  }
  return result;
}

// Own block and the block_count - 1 heaviest earlier ones, ties to the lower index.
std::vector<int> Choose(const AttentionCase& c, int own, const std::vector<double>& log_weights,
                        double& margin) {
  std::vector<int> order(own);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return log_weights[a] > log_weights[b]; });
  const int take = std::min(own, c.block_count - 1);
  margin = std::numeric_limits<double>::infinity();
  if (take < own && take > 0) {
    margin = log_weights[order[take - 1]] - log_weights[order[take]];
  }
  std::vector<int> chosen(order.begin(), order.begin() + take);
  chosen.push_back(own);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace

double Gate(double logit) { return 1.0 / (1.0 + std::exp(-logit / 0.3)); }

std::vector<double> Pooled(const AttentionCase& c, bool values, int kv_head, int begin, int end,
                           const std::vector<uint8_t>* keep) {
  std::vector<double> mean(c.head_dim, 0.0);
  for (int row = begin; row < end; ++row) {
    if (keep != nullptr && !(*keep)[row]) continue;
    const float* x = values ? c.V(row, kv_head) : c.K(row, kv_head);
    for (int d = 0; d < c.head_dim; ++d) mean[d] += x[d];
  }
  for (double& x : mean) x /= end - begin;
  return mean;
}

bool ChoiceDecided(const AttentionCase& c, const CausalRow& row, int kv_head, double close) {
  if (std::isinf(row.margin[kv_head])) return true;
  const std::vector<double>& weights = row.log_weights[kv_head];
  double last = std::numeric_limits<double>::infinity();
  for (int block : row.blocks[kv_head]) {
    if (block < static_cast<int>(weights.size())) last = std::min(last, weights[block]);
  }
  const auto same_keys = [&](int a, int b) {
    for (int i = 0; i < kBlock; ++i) {
      const float* k = c.K(a * kBlock + i, kv_head);
      if (!std::equal(k, k + c.head_dim, c.K(b * kBlock + i, kv_head))) return false;
    }
    return true;
  };
  int first = -1;  // of the blocks that may stand at the border
  for (int b = 0; b < static_cast<int>(weights.size()); ++b) {
    if (std::abs(weights[b] - last) > close) continue;
    if (first < 0) first = b;
    if (!same_keys(first, b)) return false;
  }
  return true;
}

CausalRow CausalNsaRow(const AttentionCase& c, int row) { return CausalNsaRow(c, row, nullptr); }

CausalRow CausalNsaRow(const AttentionCase& c, int row,
                       const std::vector<std::vector<int>>* forced_blocks) {
  const int group = c.num_q_heads / c.num_kv_heads;
  const size_t width = static_cast<size_t>(c.num_q_heads) * c.head_dim;
  CausalRow result;
  result.o_cmp.assign(width, 0.0);
  result.o_slc.assign(width, 0.0);
  result.o_win.assign(width, 0.0);
  result.out.assign(width, 0.0);
  result.blocks.resize(c.num_kv_heads);
  result.margin.assign(c.num_kv_heads, std::numeric_limits<double>::infinity());
  result.log_weights.resize(c.num_kv_heads);
  result.largest_logit.resize(c.num_kv_heads, 0.0);
  const auto put = [&](std::vector<double>& to, int head, const std::vector<double>& from) {
    std::copy(from.begin(), from.end(), to.begin() + head * c.head_dim);
  };
  if (c.is_vision.empty() || !c.is_vision[row]) {
    for (int head = 0; head < c.num_q_heads; ++head) put(result.out, head, DenseRow(c, row, head));
    result.pairs.dense = row + 1;
    return result;
  }
  for (int kv_head = 0; kv_head < c.num_kv_heads; ++kv_head) {
    const int own = row / kBlock;
    Compression compression = Compress(c, row, kv_head, result.o_cmp);
    result.log_weights[kv_head] = std::move(compression.log_weights);
    result.largest_logit[kv_head] = compression.largest_logit;
    result.blocks[kv_head] = Choose(c, own, result.log_weights[kv_head], result.margin[kv_head]);
    if (forced_blocks != nullptr) result.blocks[kv_head] = (*forced_blocks)[kv_head];
    std::vector<int> selected, window;
    for (int block : result.blocks[kv_head]) {
      for (int j = block * kBlock; j < (block + 1) * kBlock && j <= row; ++j) selected.push_back(j);
    }
    for (int j = std::max(0, row - c.window + 1); j <= row; ++j) window.push_back(j);
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      put(result.o_slc, head, RowOverKeys(c, row, head, selected));
      put(result.o_win, head, RowOverKeys(c, row, head, window));
    }
    result.pairs.selected = static_cast<int64_t>(selected.size());
    result.pairs.window = static_cast<int64_t>(window.size());
  }
  for (int b = 0; (b + 1) * kBlock - 1 <= row; ++b) ++result.pairs.compressed;
  for (int head = 0; head < c.num_q_heads; ++head) {
    const float* g = &c.g[(static_cast<size_t>(row) * c.num_q_heads + head) * 3];
    for (int d = 0; d < c.head_dim; ++d) {
      const size_t i = static_cast<size_t>(head) * c.head_dim + d;
      result.out[i] = Gate(g[0]) * result.o_cmp[i] + Gate(g[1]) * result.o_slc[i] +
                      Gate(g[2]) * result.o_win[i];
    }
  }
  return result;
}

}  // namespace videonsa::reference
