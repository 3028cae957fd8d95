#include "kernels/reference/released_nsa.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/attention/paged_kv.h"

namespace videonsa::reference {
namespace {

constexpr int kBlock = kKvPageTokens;
constexpr int kSlots = 64;
constexpr int kDataSlots = 56;
constexpr int kHeads = 28;
constexpr int kKvHeads = 4;
constexpr int kSlotsPerKvHead = 16;

struct Lanes {
  std::array<float, 64> score{};
  std::array<int, 64> index{};

  template <typename Descending>
  void Merge(int t, const Descending& descending) {
    for (int d = 1 << (t - 1); d > 0; d /= 2) {
      for (int j = 0; j < 64; ++j) {
        if ((j & d) != 0) continue;
        if ((score[j] > score[j + d]) != descending(j)) {
          std::swap(score[j], score[j + d]);
          std::swap(index[j], index[j + d]);
        }
      }
    }
  }
};

}  // namespace

int KeptBlocks(int block_count) {
  int n = 1;
  while (n < block_count) n *= 2;
  return n;
}

std::vector<int> NetworkChoice(const std::vector<float>& scores, int n) {
  const int own = static_cast<int>(scores.size()) - 1;
  Lanes kept;
  for (int x = 0; x <= own / 64; ++x) {
    Lanes chunk;
    for (int j = 0; j < 64; ++j) {
      const int block = 64 * x + j;
      chunk.score[j] = block <= own ? scores[block] : 0.0f;
      chunk.index[j] = block <= own ? block : -1;
    }
    for (int t = 1; t <= 5; ++t) chunk.Merge(t, [t](int j) { return (j >> t & 1) != 0; });
    if (x == 0) {
      kept = chunk;
    } else {
      chunk.Merge(6, [](int) { return false; });
      for (int j = 32; j < 64; ++j) {
        kept.score[j] = chunk.score[j];
        kept.index[j] = chunk.index[j];
      }
    }
    kept.Merge(6, [](int) { return true; });
  }
  return std::vector<int>(kept.index.begin(), kept.index.begin() + n);
}

ReleasedNsa::ReleasedNsa(const AttentionCase& c)
    : c_(c),
      num_blocks_((c.len + kBlock - 1) / kBlock),
      lse_(static_cast<size_t>(kSlots) * c.len, std::numeric_limits<double>::quiet_NaN()) {
  if (c.k.empty()) return;
  for (int b = 0; b < num_blocks_; ++b) {
    const int end = std::min(c.len, (b + 1) * kBlock);  // Q8: the last block by its true length
    for (int kv_head = 0; kv_head < kKvHeads; ++kv_head) {
      k_pooled_.push_back(Pooled(c, false, kv_head, b * kBlock, end, &c.is_vision));
      v_pooled_.push_back(Pooled(c, true, kv_head, b * kBlock, end, &c.is_vision));
    }
  }
}

void ReleasedNsa::OverridePooledKeys(const std::vector<float>& k_cmp) {
  k_pooled_.clear();
  for (int i = 0; i < num_blocks_ * kKvHeads; ++i) {
    k_pooled_.emplace_back(k_cmp.begin() + i * c_.head_dim, k_cmp.begin() + (i + 1) * c_.head_dim);
  }
}

void ReleasedNsa::OverrideLse(const std::vector<float>& lse) {
  lse_.assign(lse.begin(), lse.end());
}

double ReleasedNsa::LogitOfBlock(int row, int slot, int block) const {
  const int head = HeadOfSlot(slot);
  if (head < 0 || !c_.is_vision[row]) return 0.0;
  const std::vector<double>& key = k_pooled_[block * kKvHeads + slot / kSlotsPerKvHead];
  double dot = 0;
  for (int d = 0; d < c_.head_dim; ++d) dot += c_.Q(row, head)[d] * key[d];
  return dot * c_.Scale();
}

double ReleasedNsa::Lse(int slot, int row) {
  double& lse = lse_[static_cast<size_t>(slot) * c_.len + row];
  if (!std::isnan(lse)) return lse;
  std::vector<double> logits;  // Q3: own and later blocks, never an earlier one
  for (int b = row / kBlock; b < num_blocks_; ++b) logits.push_back(LogitOfBlock(row, slot, b));
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double x : logits) sum += std::exp(x - top);
  return lse = top + std::log(sum);
}

std::vector<float> ReleasedNsa::Scores(int row, int kv_head) {
  const int own = row / kBlock;
  std::vector<float> scores;
  for (int b = 0; b < own; ++b) {
    float w = 0;
    for (int i = 0; i < kSlotsPerKvHead; ++i) {
      const int slot = kv_head * kSlotsPerKvHead + i;
      const int64_t flat = int64_t{row} * kSlots + slot;  // Q4: [slot][row] read as [row][slot]
      const double ell = Lse(static_cast<int>(flat / c_.len), static_cast<int>(flat % c_.len));
      w += static_cast<float>(std::exp(LogitOfBlock(row, slot, b) - ell));
    }
    scores.push_back(std::min(w, std::numeric_limits<float>::max()));
  }
  scores.push_back(kSlotsPerKvHead);  // Q5: the own block weighs 16 and can be left out
  return scores;
}

std::vector<int> ReleasedNsa::Choose(const std::vector<float>& scores, double& margin) const {
  const int n = KeptBlocks(c_.block_count);
  const std::vector<int> chosen = NetworkChoice(scores, n);
  std::vector<bool> taken(scores.size(), false);
  double lowest = std::numeric_limits<double>::infinity();
  for (int b : chosen) {
    if (b >= 0) taken[b] = true;
    lowest = std::min<double>(lowest, b >= 0 ? scores[b] : 0.0);
  }
  double best_left = -1;
  for (size_t b = 0; b < scores.size(); ++b) {
    if (!taken[b]) best_left = std::max<double>(best_left, scores[b]);
  }
  margin = std::numeric_limits<double>::infinity();
  if (best_left >= 0) margin = lowest == best_left ? 0.0 : (lowest - best_left) / lowest;
  return chosen;
}

std::vector<double> ReleasedNsa::OverKeys(int row, int slot, const std::vector<int>& keys) const {
  const int head = HeadOfSlot(slot), kv_head = slot / kSlotsPerKvHead;
  std::vector<double> logits;
  std::vector<std::vector<double>> values;
  for (int key : keys) {
    const bool live = c_.is_vision[key];
    double dot = 0;
    if (live && head >= 0 && c_.is_vision[row]) {
      for (int d = 0; d < c_.head_dim; ++d) {
        dot += static_cast<double>(c_.Q(row, head)[d]) * c_.K(key, kv_head)[d];
      }
    }
    logits.push_back(dot * c_.Scale());
    values.emplace_back(c_.head_dim, 0.0);
    for (int d = 0; live && d < c_.head_dim; ++d) values.back()[d] = c_.V(key, kv_head)[d];
  }
  return SoftmaxOver(logits, values, c_.head_dim).out;
}

std::vector<double> ReleasedNsa::DensePass(int row) const {
  std::vector<double> out;
  for (int head = 0; head < kHeads; ++head) {
    std::vector<double> dense(c_.head_dim, 0.0);
    if (c_.is_vision[row]) {  // Q7: a zero query over unzeroed values: their mean
      for (int j = 0; j <= row; ++j) {
        for (int d = 0; d < c_.head_dim; ++d) dense[d] += c_.V(j, head / 7)[d] / (row + 1.0);
      }
    } else {
      dense = DenseRow(c_, row, head);
    }
    out.insert(out.end(), dense.begin(), dense.end());
  }
  return out;
}

ReleasedRow ReleasedNsa::Row(int row) { return Row(row, nullptr); }

ReleasedRow ReleasedNsa::Row(int row, const std::vector<std::vector<int>>* forced_blocks) {
  const int dim = c_.head_dim;
  ReleasedRow r;
  r.sparse_h.assign(kHeads * dim, 0.0);
  r.margin.resize(kKvHeads);
  r.scores.resize(kKvHeads);
  r.blocks.resize(kKvHeads);
  r.selected_pairs.assign(kKvHeads, 0);
  std::vector<int> window;
  for (int j = std::max(0, row - (c_.window - 1)); j <= row; ++j) window.push_back(j);
  const bool vision = c_.is_vision[row];
  for (int slot = 0; slot < kSlots; ++slot) {
    const int kv_head = slot / kSlotsPerKvHead, head = HeadOfSlot(slot);
    if (slot % kSlotsPerKvHead == 0) {
      r.scores[kv_head] = Scores(row, kv_head);
      r.blocks[kv_head] = Choose(r.scores[kv_head], r.margin[kv_head]);
      if (forced_blocks != nullptr) r.blocks[kv_head] = (*forced_blocks)[kv_head];
    }
    std::vector<double> logits;
    std::vector<std::vector<double>> values;
    for (int b = row / kBlock; b < num_blocks_; ++b) {
      logits.push_back(LogitOfBlock(row, slot, b));
      values.push_back(v_pooled_[b * kKvHeads + kv_head]);
    }
    std::vector<int> selected;
    for (int b : r.blocks[kv_head]) {
      for (int j = b * kBlock; b >= 0 && j < (b + 1) * kBlock && j <= row; ++j)
        selected.push_back(j);
    }
    if (vision) r.selected_pairs[kv_head] = static_cast<int64_t>(selected.size());
    const std::vector<double> cmp = SoftmaxOver(logits, values, dim).out;
    const std::vector<double> slc = OverKeys(row, slot, selected);
    const std::vector<double> win = OverKeys(row, slot, window);
    r.o_cmp.insert(r.o_cmp.end(), cmp.begin(), cmp.end());
    r.o_slc.insert(r.o_slc.end(), slc.begin(), slc.end());
    r.o_win.insert(r.o_win.end(), win.begin(), win.end());
    if (head < 0) continue;
    const float* g = &c_.g[(static_cast<size_t>(row) * kHeads + head) * 3];
    const auto gate = [&](int branch) { return vision ? Gate(g[branch]) : 0.5; };  // Q6
    for (int d = 0; d < dim; ++d) {
      r.sparse_h[head * dim + d] += 0.5 * (gate(0) * cmp[d] + gate(1) * slc[d] + gate(2) * win[d]);
    }
  }
  r.dense_h = DensePass(row);
  r.out = r.sparse_h;
  for (size_t i = 0; i < r.out.size(); ++i) r.out[i] += r.dense_h[i];
  if (vision) {
    r.pairs.compressed = num_blocks_ - row / kBlock;
    r.pairs.window = static_cast<int64_t>(window.size());
  } else {
    r.pairs.dense = row + 1;
  }
  return r;
}

}  // namespace videonsa::reference
