#include "runtime/serving/settings.h"

#include <gtest/gtest.h>

#include "tests/runtime/serving/serving_fixtures.h"

namespace videonsa {
namespace {

TEST(ResolveGeneration, TakesTheRequestThenTheCheckpointThenTheServer) {
  GenerationDefaults defaults;
  defaults.do_sample = true;
  defaults.temperature = 0.7f;
  defaults.top_k = 20;
  defaults.repetition_penalty = 1.05f;
  GenerationParams params;
  params.top_k = 5;
  params.seed = 9;
  const auto out = ResolveGeneration(params, defaults, 100, 1000, 77);
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_FLOAT_EQ(out->sampling.temperature, 0.7f);
  EXPECT_EQ(out->sampling.top_k, 5);
  EXPECT_FLOAT_EQ(out->sampling.top_p, 1.0f);
  EXPECT_FLOAT_EQ(out->sampling.repetition_penalty, 1.05f);
  EXPECT_EQ(out->sampling.max_output_tokens, 256);
  EXPECT_EQ(out->sampling.seed, 9u);
  EXPECT_EQ(out->sampling.num_logprobs, -1);
  EXPECT_TRUE(out->effective.temperature && out->effective.top_p && out->effective.top_k &&
              out->effective.min_p && out->effective.repetition_penalty && out->effective.seed &&
              out->effective.max_output_tokens);
}

TEST(ResolveGeneration, IsGreedyWhereTheCheckpointDoesNotSample) {
  GenerationDefaults defaults;
  defaults.temperature = 0.7f;  // without do_sample it says nothing
  EXPECT_EQ(ResolveGeneration({}, defaults, 1, 1000, 77)->sampling.temperature, 0.0f);
  EXPECT_EQ(ResolveGeneration({}, defaults, 1, 1000, 77)->sampling.seed, 77u);
}

TEST(ResolveGeneration, AnUnsetLengthShrinksToTheContextASetOneDoesNot) {
  GenerationParams params;
  auto out = ResolveGeneration(params, {}, 900, 1000, 0);
  EXPECT_EQ(out->sampling.max_output_tokens, 100);
  EXPECT_TRUE(out->limited_by_context);
  params.max_output_tokens = 200;
  out = ResolveGeneration(params, {}, 900, 1000, 0);  // refused later, with the sum
  EXPECT_EQ(out->sampling.max_output_tokens, 200);
  EXPECT_FALSE(out->limited_by_context);
  const absl::Status full = ResolveGeneration({}, {}, 1000, 1000, 0).status();
  EXPECT_EQ(ReasonOf(full), "CONTEXT_TOO_LONG");
  EXPECT_NE(full.message().find("1000 prompt tokens"), std::string::npos);
  params.max_output_tokens = 5000;
  EXPECT_EQ(ReasonOf(ResolveGeneration(params, {}, 1, 1000, 0).status()), "FIELD_INVALID");
}

// A prompt of 64 text rows and `vision` vision rows.
SequenceSpec Spec(int vision) {
  SequenceSpec spec;
  spec.token_ids.assign(64 + vision, 1);
  const int length = 64 + vision;
  for (int axis = 0; axis < 3; ++axis) {
    for (int i = 0; i < length; ++i) {
      spec.positions.push_back(i < 64 ? i : 64 + (axis == 0 ? 0 : axis + i));
    }
  }
  if (vision > 0) spec.vision_spans.push_back({64, vision, 0});
  return spec;
}

ExecutorInfo Info(AttentionSemantics semantics) {
  ExecutorInfo info;
  info.semantics = semantics;
  if (IsNativeSparse(semantics)) {
    info.selected_blocks = 32;
    info.window_tokens = 256;
  }
  return info;
}

TEST(ResolveAttention, RunsAsTrainedOrDenseAndNothingElse) {
  const ExecutorInfo causal = Info(AttentionSemantics::kCausalNsa);
  AttentionParams params;
  auto out = ResolveAttention(params, {}, causal, Spec(1000));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->settings.semantics, AttentionSemantics::kCausalNsa);
  EXPECT_EQ(out->settings.selected_blocks, 32);
  EXPECT_EQ(out->settings.window_tokens, 256);
  EXPECT_EQ(out->effective.copies, 1);
  params.semantics = AttentionSemantics::kDense;
  EXPECT_EQ(ResolveAttention(params, {}, causal, Spec(1000))->effective.semantics,
            AttentionSemantics::kDense);
  params.semantics = AttentionSemantics::kReleasedNsa;
  EXPECT_EQ(ReasonOf(ResolveAttention(params, {}, causal, Spec(1000)).status()),
            "ATTENTION_UNSUPPORTED");
  params.semantics = AttentionSemantics::kCausalNsa;
  EXPECT_EQ(
      ReasonOf(ResolveAttention(params, {}, Info(AttentionSemantics::kDense), Spec(9)).status()),
      "ATTENTION_UNSUPPORTED");
}

constexpr AttentionSemantics kPatterns[] = {
    AttentionSemantics::kTriShape, AttentionSemantics::kMInference,
    AttentionSemantics::kFlexPrefill, AttentionSemantics::kXAttention};

TEST(ResolveAttention, TrainingFreePatternsNeedADenseCheckpoint) {
  for (const AttentionSemantics pattern : kPatterns) {
    AttentionParams params;
    params.semantics = pattern;
    for (const int vision : {0, 300}) {  // text rows alike
      const auto out = ResolveAttention(params, {}, Info(AttentionSemantics::kDense), Spec(vision));
      ASSERT_TRUE(out.ok()) << out.status();
      EXPECT_EQ(out->settings.semantics, pattern);
      EXPECT_EQ(out->effective.semantics, pattern);
      EXPECT_EQ(out->effective.copies, 1);
      EXPECT_DOUBLE_EQ(out->forecast.budget_fraction(), 1);  // the most that it can score
    }
    for (const AttentionSemantics trained :
         {AttentionSemantics::kCausalNsa, AttentionSemantics::kReleasedNsa}) {
      const absl::Status refused = ResolveAttention(params, {}, Info(trained), Spec(300)).status();
      EXPECT_EQ(ReasonOf(refused), "ATTENTION_UNSUPPORTED");
      EXPECT_NE(refused.message().find(SemanticsName(trained)), std::string::npos) << refused;
    }
    ExecutorInfo switched_off = Info(AttentionSemantics::kDense);  // --attention dense
    switched_off.has_gates = true;
    EXPECT_EQ(ReasonOf(ResolveAttention(params, {}, switched_off, Spec(300)).status()),
              "ATTENTION_UNSUPPORTED");
    // A server may run every request so: its own default, and a request's other choice.
    EXPECT_TRUE(ResolveAttention({}, {}, Info(pattern), Spec(300)).ok());
    EXPECT_TRUE(ResolveAttention(params, {}, Info(kPatterns[0]), Spec(300)).ok());
  }
}

TEST(ResolveAttention, TrainingFreePatternsTakeNoBudget) {
  const ExecutorInfo info = Info(AttentionSemantics::kDense);
  const auto reason = [&](const AttentionParams& params) {
    return ReasonOf(ResolveAttention(params, {}, info, Spec(300)).status());
  };
  for (const AttentionSemantics pattern : kPatterns) {
    AttentionParams params;
    params.semantics = pattern;
    params.selected_blocks = 8;
    EXPECT_EQ(reason(params), "FIELD_INVALID");
    params.selected_blocks.reset();
    params.window_tokens = 64;
    EXPECT_EQ(reason(params), "FIELD_INVALID");
    params.window_tokens.reset();
    params.max_budget_fraction = 0.9;
    EXPECT_EQ(reason(params), "BUDGET_UNREACHABLE");
    params.max_budget_fraction = 1.0;
    EXPECT_EQ(reason(params), "");
  }
}

TEST(ResolveAttention, RefusesSettingsThatTheSemanticsHasNot) {
  AttentionParams params;
  params.selected_blocks = 64;
  EXPECT_EQ(
      ReasonOf(
          ResolveAttention(params, {}, Info(AttentionSemantics::kReleasedNsa), Spec(100)).status()),
      "FIELD_INVALID");
  EXPECT_EQ(
      ReasonOf(ResolveAttention(params, {}, Info(AttentionSemantics::kDense), Spec(100)).status()),
      "FIELD_INVALID");
  EXPECT_TRUE(ResolveAttention(params, {}, Info(AttentionSemantics::kCausalNsa), Spec(100)).ok());
}

TEST(ResolveAttention, APromptWithoutVisualsIsDenseInEverySemantics) {
  const auto out = ResolveAttention({}, {}, Info(AttentionSemantics::kReleasedNsa), Spec(0));
  EXPECT_EQ(out->settings.semantics, AttentionSemantics::kDense);
  EXPECT_EQ(out->effective.copies, 1);
}

TEST(ResolveAttention, ReleasedRunsTwoCopies) {
  const auto out = ResolveAttention({}, {}, Info(AttentionSemantics::kReleasedNsa), Spec(500));
  EXPECT_EQ(out->effective.copies, 2);
}

TEST(ResolveAttention, ABudgetLowersBlocksFirstThenTheWindow) {
  const ExecutorInfo info = Info(AttentionSemantics::kCausalNsa);
  const SequenceSpec spec = Spec(8000);
  const double whole = ResolveAttention({}, {}, info, spec)->forecast.budget_fraction();
  AttentionParams params;
  params.max_budget_fraction = whole;
  EXPECT_FALSE(ResolveAttention(params, {}, info, spec)->effective.clamped);

  params.max_budget_fraction = whole * 0.6;
  const auto blocks = ResolveAttention(params, {}, info, spec);
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  EXPECT_TRUE(blocks->effective.clamped);
  EXPECT_LT(blocks->settings.selected_blocks, 32);
  EXPECT_GT(blocks->settings.selected_blocks, 1);
  EXPECT_EQ(blocks->settings.window_tokens, 256);
  EXPECT_LE(blocks->forecast.budget_fraction(), whole * 0.6);
  AttentionSettings more = blocks->settings;  // one block more would not have fitted
  ++more.selected_blocks;
  SequenceSpec shaped = spec;
  shaped.attention = more;
  EXPECT_GT(ForecastPairs(VisionRows(shaped), more).budget_fraction(), whole * 0.6);

  params.max_budget_fraction = 0.04;
  const auto window = ResolveAttention(params, {}, info, spec);
  ASSERT_TRUE(window.ok()) << window.status();
  EXPECT_EQ(window->settings.selected_blocks, 1);
  EXPECT_LT(window->settings.window_tokens, 256);
  EXPECT_LE(window->forecast.budget_fraction(), 0.04);

  params.max_budget_fraction = 0.001;
  EXPECT_EQ(ReasonOf(ResolveAttention(params, {}, info, spec).status()), "BUDGET_UNREACHABLE");
  params.semantics = AttentionSemantics::kDense;
  EXPECT_EQ(ReasonOf(ResolveAttention(params, {}, info, spec).status()), "BUDGET_UNREACHABLE");
}

}  // namespace
}  // namespace videonsa
