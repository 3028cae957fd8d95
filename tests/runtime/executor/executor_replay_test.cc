// A sequence that left and comes back with its answer so far goes on as if it had stayed.
#include <algorithm>

#include "tests/runtime/executor/executor_harness.h"

namespace videonsa {
namespace {

using test::ExecutorHarness;
using test::TinyModel;
using test::Types;
using test::WithType;

class ExecutorReplay : public ::testing::TestWithParam<const char*> {
 protected:
  static TinyModel Model() {
    TinyModel model;
    model.semantics = GetParam();
    if (model.semantics != "dense") {
      model.selected_blocks = 2;
      model.window_tokens = 40;
    }
    if (model.semantics == "released_nsa") {
      model.q_heads = 28;
      model.kv_heads = 4;
    }
    return model;
  }
};

constexpr int kTokens = 140;  // over two page borders

TEST_P(ExecutorReplay, AnswersGoOnBitForBit) {
  for (const ComputeType type : Types()) {
    ExecutorHarness harness(Model(), WithType(type, 48));
    SequenceSpec spec = harness.Prompt(1, 30, {2, 14, 18}, kTokens);
    spec.sampling.temperature = 0.9f;
    spec.sampling.seed = 5;
    spec.sampling.repetition_penalty = 1.2f;
    spec.sampling.suppress_eos = true;
    spec.attention.want_evidence = true;
    SequenceSpec other = harness.Prompt(2, 20, {}, kTokens);
    const std::vector<int32_t> expected = harness.Answer(spec);
    const std::vector<int32_t> other_expected = harness.Answer(other);
    ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
    StepPlan plan{0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(spec)}, {}};
    for (int i = 0; i < kTokens; ++i) {
      harness.MustRun(plan);
      plan = {0, {}, {}, {spec.id}};
    }
    const AttentionAccount account = harness.executor().Account(spec.id);
    harness.executor().ReleaseSequence(spec.id);
    for (const int kept : {1, 2, 65, kTokens - 1}) {
      // Somebody else decodes in the same steps, and had the pages in between.
      SequenceSpec again = spec;
      std::reverse(again.page_ids.begin(), again.page_ids.end());
      again.answer_ids.assign(expected.begin(), expected.begin() + kept);
      ASSERT_TRUE(harness.executor().AddSequence(again).ok());
      ASSERT_TRUE(harness.executor().AddSequence(other).ok());
      harness.MustRun({0, {}, {harness.WholePrefill(other)}, {}});
      EXPECT_TRUE(
          harness.MustRun({0, ExecutorHarness::VisionOf(again), {harness.WholePrefill(again)}, {}})
              .tokens.empty());
      std::vector<int32_t> got = again.answer_ids, other_got;
      for (int begin = 0, piece = 1; begin + 1 < kept; piece = 3 * piece + 60) {
        const int end = std::min(begin + piece, kept - 1);
        const StepResult result =
            harness.MustRun({0, {}, {}, {other.id}, {{again.id, begin, end}}});
        ASSERT_EQ(result.tokens.size(), 1u);
        other_got.push_back(result.tokens[0].token_id);
        begin = end;
      }
      while (static_cast<int>(got.size()) < kTokens) {
        got.push_back(harness.MustRun({0, {}, {}, {again.id}}).tokens.at(0).token_id);
      }
      EXPECT_EQ(got, expected) << GetParam() << ", " << kept << " tokens kept";
      EXPECT_TRUE(std::equal(other_got.begin(), other_got.end(), other_expected.begin() + 1));
      // The same rows were computed, so the same pairs and shares.
      const AttentionAccount resumed = harness.executor().Account(again.id);
      EXPECT_EQ(resumed.layers, account.layers);
      EXPECT_EQ(resumed.dense_pairs, account.dense_pairs);
      // Shares are summed in the threads' order.
      ASSERT_EQ(resumed.block_share.size(), account.block_share.size());
      for (size_t i = 0; i < account.block_share.size(); ++i) {
        EXPECT_NEAR(resumed.block_share[i], account.block_share[i], 1e-9);
      }
      harness.executor().ReleaseSequence(again.id);
      harness.executor().ReleaseSequence(other.id);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Semantics, ExecutorReplay,
                         ::testing::Values("dense", "causal_nsa", "released_nsa"));

TEST(ExecutorReplayChecks, RefusesAnAnswerThatIsCompleteOrOutsideTheVocabulary) {
  ExecutorHarness harness;
  SequenceSpec spec = harness.Prompt(1, 20, {}, 4);
  spec.answer_ids = {1, 2, 3, 4};
  EXPECT_EQ(harness.executor().AddSequence(spec).code(), absl::StatusCode::kInvalidArgument);
  spec.answer_ids = {1, -1};
  EXPECT_EQ(harness.executor().AddSequence(spec).code(), absl::StatusCode::kInvalidArgument);
  spec.answer_ids = {1, 1 << 30};
  EXPECT_EQ(harness.executor().AddSequence(spec).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace videonsa
