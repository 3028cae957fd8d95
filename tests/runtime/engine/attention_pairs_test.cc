#include "runtime/engine/attention_pairs.h"

#include <gtest/gtest.h>

#include <random>

namespace videonsa {
namespace {

// Counts pair by pair, straight from attention.md sections 3 and 4.
BranchPairs CountCausal(const std::vector<uint8_t>& vision, int blocks, int window) {
  BranchPairs sum;
  const int length = static_cast<int>(vision.size());
  for (int i = 0; i < length; ++i) {
    if (!vision[i]) {
      sum.dense += i + 1;
      continue;
    }
    int earlier = 0;
    for (int b = 0; b * 64 < length; ++b) sum.compressed += (b + 1) * 64 - 1 <= i;
    for (int b = i / 64 - 1; b >= 0 && earlier < blocks - 1; --b, ++earlier) sum.selected += 64;
    for (int j = i / 64 * 64; j <= i; ++j) ++sum.selected;
    for (int j = 0; j <= i; ++j) sum.window += i - window < j;
  }
  return sum;
}

BranchPairs CountReleased(const std::vector<uint8_t>& vision, int blocks, int window) {
  BranchPairs sum;
  const int length = static_cast<int>(vision.size());
  for (int i = 0; i < length; ++i) {
    if (!vision[i]) {
      sum.dense += i + 1;
      continue;
    }
    for (int b = 0; b * 64 < length; ++b) sum.compressed += 2 * (i <= (b + 1) * 64 - 1);
    const int own = i / 64;
    const int chosen = std::min(blocks, own + 1);
    sum.selected += 2 * ((chosen - 1) * 64 + i - own * 64 + 1);
    for (int j = 0; j <= i; ++j) sum.window += 2 * (i - (window - 1) <= j);
  }
  return sum;
}

TEST(ForecastPairs, EqualsTheCountPairByPair) {
  std::mt19937 random(3);
  for (const int length : {1, 63, 64, 65, 130, 700, 1000}) {
    std::vector<uint8_t> vision(length);
    const int begin = static_cast<int>(random() % length);
    for (int i = begin; i < length; ++i) vision[i] = random() % 8 != 0;
    for (const int blocks : {1, 4, 32}) {
      AttentionSettings attention;
      attention.selected_blocks = blocks;
      attention.window_tokens = 100;
      attention.semantics = AttentionSemantics::kCausalNsa;
      EXPECT_EQ(ForecastPairs(vision, attention).pairs, CountCausal(vision, blocks, 100));
      attention.semantics = AttentionSemantics::kReleasedNsa;
      EXPECT_EQ(ForecastPairs(vision, attention).pairs, CountReleased(vision, blocks, 100));
      attention.semantics = AttentionSemantics::kDense;
      const PairForecast dense = ForecastPairs(vision, attention);
      EXPECT_EQ(dense.pairs.dense, dense.dense_pairs);
      EXPECT_DOUBLE_EQ(dense.budget_fraction(), 1.0);
    }
  }
}

TEST(ForecastPairs, BetweenSplitsTheTotalAtPages) {
  AttentionSettings attention;
  const PairForecast forecast = ForecastPairs(std::vector<uint8_t>(200, 0), attention);
  EXPECT_EQ(forecast.Between(0, 200), 200 * 201 / 2);
  EXPECT_EQ(forecast.Between(0, 64), 64 * 65 / 2);
  EXPECT_EQ(forecast.Between(0, 64) + forecast.Between(64, 200), forecast.Between(0, 200));
  EXPECT_EQ(forecast.Between(0, 0), 0);
}

TEST(VisionRows, FollowsTokensOrPositionsBySemantics) {
  SequenceSpec spec;
  spec.token_ids = {1, 9, 9, 2};
  spec.positions = {0, 1, 1, 5, 0, 1, 1, 5, 0, 1, 2, 5};
  spec.vision_spans = {{1, 2, 0}};
  spec.attention.semantics = AttentionSemantics::kCausalNsa;
  EXPECT_EQ(VisionRows(spec), (std::vector<uint8_t>{0, 1, 1, 0}));
  spec.attention.semantics = AttentionSemantics::kReleasedNsa;
  EXPECT_EQ(VisionRows(spec), (std::vector<uint8_t>{0, 0, 1, 0}));  // first pad counts as text
}

}  // namespace
}  // namespace videonsa
