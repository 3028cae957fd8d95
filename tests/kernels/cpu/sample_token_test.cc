#include "kernels/cpu/sample_token.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace videonsa {
namespace {

int32_t Sample(std::vector<float> logits, SampleParams params) {
  std::vector<int32_t> scratch(logits.size());
  params.logits = logits.data();
  params.vocab = static_cast<int>(logits.size());
  params.scratch = scratch.data();
  return SampleToken(params);
}

// Shares of the ids over evenly spread draws.
std::map<int32_t, double> Shares(const std::vector<float>& logits, SampleParams params) {
  constexpr int kDraws = 20000;
  std::map<int32_t, double> shares;
  for (int i = 0; i < kDraws; ++i) {
    params.uniform = (i + 0.5) / kDraws;
    shares[Sample(logits, params)] += 1.0 / kDraws;
  }
  return shares;
}

TEST(SampleToken, GreedyTakesTheLowestIdOfATie) {
  EXPECT_EQ(Sample({1, 5, 5, 2}, {}), 1);
  EXPECT_EQ(Sample({-INFINITY, -INFINITY}, {}), 0);
  EXPECT_EQ(Sample({NAN, -3, NAN, -2}, {}), 3);
}

TEST(SampleToken, PenaltyDividesPositiveAndMultipliesNegativeLogitsOnce) {
  const int32_t seen[] = {0, 2};
  SampleParams params;
  params.seen = seen;
  params.num_seen = 2;
  params.repetition_penalty = 2;
  EXPECT_EQ(Sample({4, 2.5f, -9}, params), 1);
  EXPECT_EQ(Sample({-1, -1.5f, -0.5f}, params), 2);
  EXPECT_EQ(Sample({-1, -1.9f, -1}, params), 1);
}

TEST(SampleToken, SuppressedIdsNeverWin) {
  const int32_t stop[] = {1};
  SampleParams params;
  params.suppressed = stop;
  params.num_suppressed = 1;
  EXPECT_EQ(Sample({0, 9, 1}, params), 2);
}

TEST(SampleToken, DrawsFollowTheSoftmaxOfTheTemperature) {
  SampleParams params;
  params.temperature = 0.5f;
  const auto shares = Shares({0, 1, -1}, params);
  const double sum = 1 + std::exp(2.0) + std::exp(-2.0);
  EXPECT_NEAR(shares.at(0), 1 / sum, 1e-3);
  EXPECT_NEAR(shares.at(1), std::exp(2.0) / sum, 1e-3);
  EXPECT_NEAR(shares.at(2), std::exp(-2.0) / sum, 1e-3);
}

TEST(SampleToken, TopKTopPAndMinPCutTheTail) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  SampleParams params;
  params.temperature = 1;
  params.top_k = 2;
  auto shares = Shares(logits, params);
  EXPECT_EQ(shares.size(), 2u);
  EXPECT_NEAR(shares.at(0), 0.5 / 0.8, 1e-3);
  params.top_k = 0;
  params.top_p = 0.7f;
  shares = Shares(logits, params);
  EXPECT_EQ(shares.size(), 2u);
  params.top_p = 1;
  params.min_p = 0.2f;
  shares = Shares(logits, params);
  EXPECT_EQ(shares.size(), 3u);
  EXPECT_NEAR(shares.at(2), 0.15 / 0.95, 1e-3);
  params.min_p = 1;
  EXPECT_EQ(Shares(logits, params).size(), 1u);
}

TEST(SampleToken, DrawsDependOnSeedAndStepOnly) {
  EXPECT_EQ(UniformOf(3, 7), UniformOf(3, 7));
  EXPECT_NE(UniformOf(3, 7), UniformOf(3, 8));
  EXPECT_NE(UniformOf(3, 7), UniformOf(4, 7));
  double sum = 0;
  for (uint64_t step = 0; step < 10000; ++step) {
    const double u = UniformOf(5, step);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);  // deviation of the mean: 0.003
}

TEST(SampleToken, TopTokensAndNormaliser) {
  const std::vector<float> logits = {1, 3, 3, 0, -INFINITY};
  std::vector<int32_t> scratch(5), ids(3);
  TopTokens(logits.data(), 5, 3, scratch.data(), ids.data());
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 2, 0}));
  EXPECT_NEAR(LogSumExp(logits.data(), 5), std::log(std::exp(1.0) + 2 * std::exp(3.0) + 1), 1e-6);
}

}  // namespace
}  // namespace videonsa
