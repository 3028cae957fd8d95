#include "kernels/cpu/causal_nsa.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "hwy/targets.h"
#include "tests/kernels/cpu/oracle_checks.h"

namespace videonsa {
namespace {

using reference::AttentionCase;
using reference::CausalNsaRow;
using reference::CausalRow;

AttentionCase CausalCase(int len, int heads, int kv_heads, int dim, int blocks, int window,
                         std::mt19937& rng) {
  AttentionCase c = RandomCase(len, heads, kv_heads, dim, rng);
  FillNormal(c.g, static_cast<size_t>(len) * heads * 3, rng);
  c.block_count = blocks;
  c.window = window;
  c.is_vision.assign(len, 1);
  for (int i = 0; i < len; ++i) c.is_vision[i] = i % 97 >= 11 && i < len - len / 8;
  return c;
}

// Selection weight and gates of all rows.
void ExpectReports(const AttentionCase& c, const CausalOutput& out) {
  std::vector<double> selection(out.selection_weight.size(), 0.0);
  double gates[3] = {};
  for (int row = 0; row < c.len; ++row) {
    if (!c.is_vision[row]) continue;
    const CausalRow want = CausalNsaRow(c, row);
    for (int g = 0; g < c.num_kv_heads; ++g) {
      if (want.blocks[g].size() == 1) selection[row / 64] += 1;
      double top = -std::numeric_limits<double>::infinity(), sum = 0;
      for (int b : want.blocks[g]) {
        if (b < row / 64) top = std::max(top, want.log_weights[g][b]);
      }
      const auto weight = [&](int b) {
        return b < row / 64 ? std::exp(want.log_weights[g][b] - top) : 0.0;
      };
      for (int b : want.blocks[g]) sum += weight(b);
      for (int b : want.blocks[g]) {
        if (b < row / 64) selection[b] += weight(b) / sum;
      }
    }
    for (int i = 0; i < 3 * c.num_q_heads; ++i) {
      gates[i % 3] += reference::Gate(c.g[static_cast<size_t>(row) * c.num_q_heads * 3 + i]);
    }
  }
  for (size_t b = 0; b < selection.size(); ++b) {
    EXPECT_NEAR(out.selection_weight[b], selection[b], 1e-4 * (1 + selection[b]));
  }
  const int64_t vision = std::count(c.is_vision.begin(), c.is_vision.end(), 1);
  EXPECT_EQ(out.gate_count, vision * c.num_q_heads);
  for (int b = 0; b < 3; ++b) EXPECT_NEAR(out.gate_sums[b], gates[b], 1e-5 * (1 + gates[b]));
}

TEST(CausalNsa, EqualsOracleOnEveryTarget) {
  std::mt19937 rng(1);
  const AttentionCase c = CausalCase(450, 6, 2, 32, 3, 70, rng);
  for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(hwy::TargetName(targets & -targets));
      const CausalOutput out = RunCausal(c, {.dtype = dtype, .borders = {200, 450}}, rng);
      ExpectCausalRows(c, out, RowsOf(c.len, 5));
      ExpectCausalAccount(c, out);
      ExpectReports(c, out);
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

// Queries times `steepness`, some blocks with the keys of others: most weights lie far below what
// fp32 holds, and some are equal.
AttentionCase SteepCase(int heads, int kv_heads, int blocks, float steepness, std::mt19937& rng) {
  AttentionCase c = RandomCase(1500, heads, kv_heads, 32, rng, 6.0f);
  FillNormal(c.g, static_cast<size_t>(c.len) * heads * 3, rng);
  for (float& x : c.q) x *= steepness;
  const size_t block = size_t{64} * kv_heads * c.head_dim;
  for (int copies = 0; copies < 6; ++copies) {
    const size_t from = rng() % 23 * block, to = rng() % 23 * block;
    std::copy_n(c.k.begin() + from, block, c.k.begin() + to);
  }
  c.block_count = blocks;
  c.window = 64;
  c.is_vision.assign(c.len, 1);
  return c;
}

struct SteepCounts {
  int lists = 0, below_fp32 = 0, ties = 0;
};

// Compares every choice that fp32 logits decide; equal weights exactly.
void ExpectSteepChoices(const AttentionCase& c, const CausalOutput& out, SteepCounts& counts) {
  const double smallest = std::log(std::numeric_limits<float>::denorm_min());
  for (int row : RowsOf(c.len, 7)) {
    const CausalRow want = CausalNsaRow(c, row);
    for (int g = 0; g < c.num_kv_heads; ++g) {
      const double close = kChoiceMargin * std::max(1.0, want.largest_logit[g]);
      if (!reference::ChoiceDecided(c, want, g, close)) continue;
      const auto begin = out.blocks.begin() + (int64_t{row} * c.num_kv_heads + g) * c.block_count;
      const std::vector<int> got(begin, std::find(begin, begin + c.block_count, -1));
      ASSERT_EQ(got, want.blocks[g]) << "row " << row << " kv head " << g;
      double lightest = 0;
      for (int b : got) {
        if (b < row / 64) lightest = std::min(lightest, want.log_weights[g][b]);
      }
      ++counts.lists;
      counts.below_fp32 += std::isfinite(want.margin[g]) && lightest < smallest;
      counts.ties += want.margin[g] == 0;
    }
  }
}

TEST(CausalNsa, ChoosesAmongWeightsThatLeaveFp32) {
  std::mt19937 rng(3);
  for (const auto& [heads, kv_heads, blocks, steepness] :
       {std::tuple{4, 4, 4, 50.0f}, {8, 2, 6, 100.0f}, {28, 4, 9, 200.0f}}) {
    const AttentionCase c = SteepCase(heads, kv_heads, blocks, steepness, rng);
    SteepCounts counts;
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const CausalOutput out = RunCausal(c, {.dtype = dtype, .borders = {777, c.len}}, rng);
      ExpectSteepChoices(c, out, counts);
      ExpectCausalAccount(c, out);
      const auto& weights = out.selection_weight;  // every row and KV head adds 1
      EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), c.len * kv_heads, 1e-3);
    }
    EXPECT_GT(counts.below_fp32, counts.lists / 8) << counts.lists;
    EXPECT_GT(counts.ties, 0);
  }
}

TEST(CausalNsa, ChoosesAmongWeightsThatLeaveFp32OnEveryTarget) {
  std::mt19937 rng(4);
  const AttentionCase c = SteepCase(4, 4, 5, 150.0f, rng);
  for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    SCOPED_TRACE(hwy::TargetName(targets & -targets));
    const CausalOutput out = RunCausal(c, {.borders = {c.len}}, rng);
    SteepCounts counts;
    ExpectSteepChoices(c, out, counts);
    EXPECT_GT(counts.below_fp32, counts.lists / 8) << counts.lists;
  }
  hwy::SetSupportedTargetsForTest(0);
}

// Logits past fp32's range are somebody's broken weights: the lists stay lists of blocks.
TEST(CausalNsa, BrokenLogitsChooseWholeLists) {
  std::mt19937 rng(5);
  for (float x :
       {1e30f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    AttentionCase c = SteepCase(4, 2, 4, 1e10f, rng);
    for (size_t i = 0; i < c.q.size(); i += 3) c.q[i] = x;
    const CausalOutput out = RunCausal(c, {.borders = {c.len}}, rng);
    for (int row = 0; row < c.len; ++row) {
      const auto begin = out.blocks.begin() + int64_t{row} * 2 * c.block_count;
      for (int i = 0; i < 2 * c.block_count; ++i) {
        const bool used = i % c.block_count <= row / 64;
        ASSERT_EQ(begin[i] >= 0 && begin[i] <= row / 64, used) << "row " << row << " place " << i;
      }
    }
  }
}

TEST(CausalNsa, ChunksAreBitwiseEqualToOnePiece) {
  std::mt19937 rng(2);
  const AttentionCase c = CausalCase(700, 8, 2, 64, 4, 100, rng);
  for (const auto& [dtype, math] : {std::pair{DType::kF32, MathType::kF32},
                                    {DType::kBF16, MathType::kF32},
                                    {DType::kBF16, MathType::kBF16}}) {
    const CausalOutput whole = RunCausal(c, {dtype, math, 1, {700}}, rng);
    for (const std::vector<int>& borders :
         {std::vector{1, 63, 64, 65, 127, 300, 700}, {255, 256, 257, 512, 699, 700}}) {
      const CausalOutput pieces = RunCausal(c, {dtype, math, 2, borders}, rng);
      EXPECT_EQ(std::memcmp(pieces.o.data(), whole.o.data(), whole.o.size() * 4), 0);
      EXPECT_EQ(pieces.blocks, whole.blocks);
      EXPECT_EQ(pieces.pairs.selected, whole.pairs.selected);
    }
  }
}

}  // namespace
}  // namespace videonsa
