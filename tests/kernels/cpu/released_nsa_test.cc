#include "kernels/cpu/released_nsa.h"

#include <algorithm>

#include "hwy/targets.h"
#include "kernels/cpu/released_choice.h"
#include "tests/kernels/cpu/oracle_checks.h"

namespace videonsa {
namespace {

using reference::AttentionCase;

AttentionCase ReleasedCase(int len, int dim, int blocks, int window, std::mt19937& rng) {
  AttentionCase c = RandomCase(len, kReleasedHeads, kReleasedKvHeads, dim, rng);
  FillNormal(c.g, static_cast<size_t>(len) * kReleasedHeads * 3, rng);
  c.block_count = blocks;
  c.window = window;
  c.is_vision.assign(len, 0);
  for (int i = 0; i < len; ++i) c.is_vision[i] = i % 113 >= 13 && i < len - len / 9;
  return c;
}

TEST(ReleasedNsa, EqualsOracleOnEveryTarget) {
  std::mt19937 rng(1);
  const AttentionCase c = ReleasedCase(413, 32, 3, 70, rng);
  for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(hwy::TargetName(targets & -targets));
      const ReleasedOutput out = RunReleased(c, dtype, MathType::kF32, 2, rng);
      ExpectReleasedRows(c, out, RowsOf(c.len, 7));
      ExpectReleasedAccount(c, out);
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(ReleasedNsa, ReportsShareOutOnePerRowAndKvHead) {
  std::mt19937 rng(2);
  const AttentionCase c = ReleasedCase(700, 16, 2, 64, rng);
  const ReleasedOutput out = RunReleased(c, DType::kF32, MathType::kF32, 2, rng);
  const int64_t vision = std::count(c.is_vision.begin(), c.is_vision.end(), 1);
  double weight = 0, gates[3] = {};
  for (double w : out.selection_weight) weight += w;
  EXPECT_NEAR(weight, 4.0 * vision, 1e-6 * vision);
  EXPECT_EQ(out.gate_count, 28 * vision);
  for (int row = 0; row < c.len; ++row) {
    for (int i = 0; c.is_vision[row] && i < 84; ++i)
      gates[i % 3] += reference::Gate(c.g[row * 84 + i]);
  }
  for (int b = 0; b < 3; ++b) EXPECT_NEAR(out.gate_sums[b], gates[b], 1e-5 * gates[b]);
}

TEST(ReleasedNsa, ResultsDoNotDependOnThreads) {
  std::mt19937 rng(3);
  const AttentionCase c = ReleasedCase(500, 64, 4, 100, rng);
  for (MathType math : {MathType::kF32, MathType::kBF16}) {
    const ReleasedOutput one = RunReleased(c, DType::kBF16, math, 1, rng);
    const ReleasedOutput three = RunReleased(c, DType::kBF16, math, 3, rng);
    EXPECT_EQ(std::memcmp(one.o.data(), three.o.data(), one.o.size() * sizeof(float)), 0);
  }
}

TEST(ReleasedNsa, WithoutVisionIsDense) {
  std::mt19937 rng(4);
  AttentionCase c = ReleasedCase(150, 32, 4, 64, rng);
  std::fill(c.is_vision.begin(), c.is_vision.end(), 0);
  const std::vector<double> want = reference::DenseAttention(c);
  const ReleasedOutput out = RunReleased(c, DType::kF32, MathType::kF32, 2, rng);
  EXPECT_TRUE(AllClose(out.o.data(), want.data(), want.size()));
  EXPECT_EQ(out.pairs.dense, 150 * 151 / 2);
  EXPECT_EQ(out.pairs.selected[0], 0);
}

TEST(ReleasedNsa, OnlyVisionRowsAndShortPrompts) {
  std::mt19937 rng(5);
  for (int len : {1, 2, 63, 64, 65, 129}) {
    AttentionCase c = ReleasedCase(len, 16, 2, 3, rng);
    std::fill(c.is_vision.begin(), c.is_vision.end(), 1);
    const ReleasedOutput out = RunReleased(c, DType::kF32, MathType::kF32, 2, rng);
    ExpectReleasedRows(c, out, RowsOf(len));
    ExpectReleasedAccount(c, out);
  }
}

TEST(ReleasedNsa, ScoresThatOverflowAreSaturatedAndCounted) {
  std::mt19937 rng(6);
  AttentionCase c = ReleasedCase(400, 16, 2, 64, rng);
  for (float& q : c.q) q *= 400;  // logits of earlier blocks far above other rows' sums
  const ReleasedOutput out = RunReleased(c, DType::kF32, MathType::kF32, 2, rng);
  EXPECT_GT(out.pairs.saturated_rows, 0);
  for (float o : out.o) ASSERT_TRUE(std::isfinite(o));
  for (int b : out.blocks) ASSERT_TRUE(b >= -1 && b < 7);
}

TEST(NetworkChoice, EqualsTheReferenceNetworkOnTiesAndZeros) {
  std::mt19937 rng(7);
  for (int trial = 0; trial < 300; ++trial) {
    const int tokens = 1 + static_cast<int>(rng() % 20);
    const int first = static_cast<int>(rng() % 3) * 4096 + static_cast<int>(rng() % 4000);
    const int64_t stride = 256;
    std::vector<int32_t> positions(tokens);
    for (int t = 0; t < tokens; ++t) positions[t] = first + t * 4;
    std::vector<float> scores(tokens * stride, std::numeric_limits<float>::quiet_NaN());
    for (int t = 0; t < tokens; ++t) {
      for (int b = 0; b <= positions[t] / 64; ++b) scores[t * stride + b] = rng() % 5 * 0.25f;
    }
    for (int n : {1, 4, 32}) {
      std::vector<int32_t> got(tokens * n);
      NetworkChoice(positions.data(), tokens, scores.data(), stride, n, got.data());
      for (int t = 0; t < tokens; ++t) {
        const std::vector<float> row(scores.begin() + t * stride,
                                     scores.begin() + t * stride + positions[t] / 64 + 1);
        ASSERT_EQ(std::vector<int>(got.begin() + t * n, got.begin() + (t + 1) * n),
                  reference::NetworkChoice(row, n));
      }
    }
  }
}

}  // namespace
}  // namespace videonsa
