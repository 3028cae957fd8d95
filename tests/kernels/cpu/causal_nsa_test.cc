#include "kernels/cpu/causal_nsa.h"

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
      double sum = 0;
      for (int b : want.blocks[g]) sum += b < row / 64 ? want.weights[g][b] : 0.0;
      if (sum == 0) selection[row / 64] += 1;
      for (int b : want.blocks[g]) {
        if (b < row / 64 && sum > 0) selection[b] += want.weights[g][b] / sum;
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
