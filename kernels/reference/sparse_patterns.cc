#include "kernels/reference/sparse_patterns.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace videonsa::reference {
namespace {

using Mask = std::vector<std::vector<uint8_t>>;
using Doubles = std::vector<double>;

int KvHead(const AttentionCase& c, int head) { return head * c.num_kv_heads / c.num_q_heads; }

double Logit(const AttentionCase& c, int head, int row, int key) {
  double dot = 0;
  for (int d = 0; d < c.head_dim; ++d) {
    dot += static_cast<double>(c.Q(row, head)[d]) * c.K(key, KvHead(c, head))[d];
  }
  return dot * c.Scale();
}

void Softmax(Doubles& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v - top);
  for (double& v : x) v /= sum;
}

// Softmax rows of the last `count` queries over the keys each may see.
std::vector<Doubles> LastRows(const AttentionCase& c, int head, int count) {
  std::vector<Doubles> rows;
  for (int row = c.len - count; row < c.len; ++row) {
    Doubles x;
    for (int key = 0; key <= row; ++key) x.push_back(Logit(c, head, row, key));
    Softmax(x);
    x.resize(c.len, 0.0);
    rows.push_back(x);
  }
  return rows;
}

// Indices of x by descending value, ties to the lower index.
std::vector<int> Descending(const Doubles& x) {
  std::vector<int> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return x[a] > x[b]; });
  return order;
}

Mask Dense(int len) {
  Mask mask(len, std::vector<uint8_t>(len, 0));
  for (int i = 0; i < len; ++i) std::fill(mask[i].begin(), mask[i].begin() + i + 1, 1);
  return mask;
}

Mask TriShape(const AttentionCase& c, const SparseSettings& s) {
  Mask mask = Dense(c.len);
  const int last = std::min(s.tri_last, c.len - 1);
  for (int i = 0; i < c.len - last; ++i) {
    for (int j = 0; j <= i; ++j) mask[i][j] = i - j < s.tri_local || j < s.tri_init;
  }
  return mask;
}

Mask MInference(const AttentionCase& c, const SparseSettings& s, int head) {
  const int rows = std::min(kMInferenceRows, c.len);
  const std::vector<Doubles> p = LastRows(c, head, rows);
  Doubles vertical(c.len, 0.0), slash(c.len, 0.0);
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < c.len; ++j) {
      const int offset = c.len - rows + r - j;
      vertical[j] += p[r][j];
      if (offset >= 0) slash[offset] += p[r][j];
    }
  }
  const double forced = 1e9;
  for (int j = 0; j < std::min(c.len, kMInferenceForcedColumns); ++j) vertical[j] = forced;
  for (int o = 0; o < std::min(c.len, kMInferenceForcedDiagonals); ++o) slash[o] = forced;
  std::vector<int> columns = Descending(vertical), offsets = Descending(slash);
  columns.resize(std::min(c.len, std::max(s.vertical, kMInferenceForcedColumns)));
  offsets.resize(std::min(c.len, std::max(s.slash, kMInferenceForcedDiagonals)));
  Mask mask(c.len, std::vector<uint8_t>(c.len, 0));
  for (int i = 0; i < c.len; ++i) {
    const int m = i / 64 * 64;  // diagonals are widened to whole query blocks
    for (int o : offsets) {
      for (int j = std::max(0, m - o); j < m + 64 - o && j <= i; ++j) mask[i][j] = 1;
    }
    for (int j : columns) {
      if (j <= i) mask[i][j] = 1;
    }
  }
  return mask;
}

Mask OfBlocks(int len, const std::vector<std::vector<uint8_t>>& blocks) {
  Mask mask = Dense(len);
  for (int i = 0; i < len; ++i) {
    for (int j = 0; j <= i; ++j) mask[i][j] = blocks[i / kSparseBlock][j / kSparseBlock];
  }
  return mask;
}

Doubles MeanOfRows(const AttentionCase& c, bool queries, int head, int begin, int end) {
  Doubles mean(c.head_dim, 0.0);
  for (int i = begin; i < end; ++i) {
    const float* x = queries ? c.Q(i, head) : c.K(i, KvHead(c, head));
    for (int d = 0; d < c.head_dim; ++d) mean[d] += x[d] / (end - begin);
  }
  return mean;
}

double Dot(const Doubles& a, const Doubles& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// (smallest k whose k largest sum to gamma, plus 1) / 128 + 1 blocks.
int Budget(const Doubles& weights, double gamma, int min_blocks, int num_blocks) {
  double sum = 0;
  int k = 0;
  for (int i : Descending(weights)) {
    if (sum >= gamma) break;
    sum += weights[i];
    ++k;
  }
  return std::clamp((k + 1) / kSparseBlock + 1, std::min(min_blocks, num_blocks), num_blocks);
}

double JensenShannon(const Doubles& a, const Doubles& p) {
  double sum = 0;
  for (size_t b = 0; b < a.size(); ++b) {
    const double m = 0.5 * (a[b] + p[b]);
    if (a[b] > 0) sum += 0.5 * a[b] * std::log(a[b] / m);
    if (p[b] > 0) sum += 0.5 * p[b] * std::log(p[b] / m);
  }
  return std::sqrt(sum);
}

Mask FlexPrefill(const AttentionCase& c, const SparseSettings& s, int head) {
  if (c.len <= 2 * kSparseBlock) return Dense(c.len);
  const int n = (c.len + kSparseBlock - 1) / kSparseBlock;
  const std::vector<Doubles> rows = LastRows(c, head, kSparseBlock);
  Doubles vertical(c.len, 0.0), slash(c.len, 0.0), block_v(n, 0.0), block_s(n, 0.0);
  for (int r = 0; r < kSparseBlock; ++r) {
    for (int j = 0; j <= c.len - kSparseBlock + r; ++j) {
      vertical[j] += rows[r][j] / kSparseBlock;
      slash[c.len - kSparseBlock + r - j] += rows[r][j] / kSparseBlock;
    }
  }
  for (int j = 0; j < c.len; ++j) {
    block_v[j / kSparseBlock] += vertical[j];
    block_s[j / kSparseBlock] += slash[j];
  }
  std::vector<Doubles> pooled_k, pooled_q;
  for (int b = 0; b < n; ++b) {
    const int end = std::min(c.len, (b + 1) * kSparseBlock);
    pooled_k.push_back(MeanOfRows(c, false, head, b * kSparseBlock, end));
    pooled_q.push_back(MeanOfRows(c, true, head, b * kSparseBlock, end));
  }
  const Doubles q_mean = MeanOfRows(c, true, head, c.len - kSparseBlock, c.len);
  Doubles a;
  for (int b = 0; b < n; ++b) a.push_back(Dot(q_mean, pooled_k[b]) * c.Scale());
  Softmax(a);
  const bool query_aware = JensenShannon(a, block_v) < s.flex_tau;
  const int low = std::min(s.flex_min_blocks, n);
  const int n_v = query_aware ? low : Budget(vertical, s.flex_gamma, low, n);
  const int n_s = query_aware ? low : Budget(slash, s.flex_gamma, low, n);
  block_v[0] = block_s[0] = 1e9;  // forced: the first column, the main diagonal
  std::vector<int> columns = Descending(block_v), diagonals = Descending(block_s);
  columns.resize(n_v);
  diagonals.resize(n_s);
  std::vector<std::vector<uint8_t>> blocks(n, std::vector<uint8_t>(n, 0));
  for (int qb = 0; qb < n; ++qb) {
    for (int kb : columns) blocks[qb][kb] |= kb <= qb;
    for (int o : diagonals) {
      if (o <= qb) blocks[qb][qb - o] = 1;
    }
  }
  if (!query_aware) return OfBlocks(c.len, blocks);
  Doubles flat(static_cast<size_t>(n) * n, -1.0);
  for (int qb = 0; qb < n; ++qb) {
    Doubles row;
    for (int kb = 0; kb <= qb; ++kb) row.push_back(Dot(pooled_q[qb], pooled_k[kb]) * c.Scale());
    Softmax(row);
    std::copy(row.begin(), row.end(), flat.begin() + qb * n);
  }
  double sum = 0;
  for (int i : Descending(flat)) {
    if (flat[i] < 0 || sum > s.flex_gamma * n) break;
    blocks[i / n][i % n] = 1;
    sum += flat[i];
  }
  return OfBlocks(c.len, blocks);
}

Mask XAttention(const AttentionCase& c, const SparseSettings& s, int head) {
  const int n = (c.len + kSparseBlock - 1) / kSparseBlock;
  const int patches = (c.len + kFoldTokens - 1) / kFoldTokens;
  std::vector<Doubles> weight(n, Doubles(n, 0.0));
  for (int i = 0; i < patches; ++i) {
    Doubles x;
    for (int j = 0; j <= i; ++j) {
      double sum = 0;  // the anti-diagonal of the patch; positions past the end are zeros
      for (int t = 0; t < kFoldTokens; ++t) {
        const int row = i * kFoldTokens + kFoldTokens - 1 - t, key = j * kFoldTokens + t;
        if (row < c.len && key < c.len) sum += Logit(c, head, row, key);
      }
      x.push_back(sum / kFoldTokens);
    }
    Softmax(x);
    for (int j = 0; j <= i; ++j) {
      weight[i * kFoldTokens / kSparseBlock][j * kFoldTokens / kSparseBlock] += x[j];
    }
  }
  std::vector<std::vector<uint8_t>> blocks(n, std::vector<uint8_t>(n, 0));
  for (int qb = 0; qb < n; ++qb) {
    const double total = std::accumulate(weight[qb].begin(), weight[qb].end(), 0.0);
    blocks[qb][0] = blocks[qb][qb] = 1;
    double kept = weight[qb][0] + (qb > 0 ? weight[qb][qb] : 0.0);
    for (int kb : Descending(weight[qb])) {
      if (kept >= s.x_threshold * total) break;
      if (kb > qb || blocks[qb][kb]) continue;
      blocks[qb][kb] = 1;
      kept += weight[qb][kb];
    }
  }
  return OfBlocks(c.len, blocks);
}

}  // namespace

std::vector<std::vector<uint8_t>> VisibleKeys(const AttentionCase& c, SparsePattern pattern,
                                              const SparseSettings& settings, int head) {
  switch (pattern) {
    case SparsePattern::kTriShape:
      return TriShape(c, settings);
    case SparsePattern::kMInference:
      return MInference(c, settings, head);
    case SparsePattern::kFlexPrefill:
      return FlexPrefill(c, settings, head);
    case SparsePattern::kXAttention:
      return XAttention(c, settings, head);
  }
  return {};
}

}  // namespace videonsa::reference
