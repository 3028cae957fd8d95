// Tables: running sequences -> expected plan.
#include "runtime/engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>

namespace videonsa {
namespace {

// A machine on which a prefill token takes 1 ms, a decode row 5 ms, a patch 10 us.
class SchedulerTest : public ::testing::Test {
 protected:
  SchedulerTest() : cost_(Info()) {
    for (int i = 0; i < 400; ++i) {
      StepWork work;
      work.prefill_slices = 1;
      work.prefill_tokens = 64 * (1 + i % 8);
      work.prefill_pairs = 100.0 * ((i * 7) % 5);
      work.decode_rows = 1 + i % 16;
      work.decode_kv_tokens = 10.0 * ((i * 3) % 11);
      work.vision_slices = 1;
      work.vision_patches = 100 * (1 + i % 3);
      StepResult result;
      result.prefill_time = absl::Milliseconds(1) * work.prefill_tokens;
      result.decode_time = absl::Milliseconds(5) * work.decode_rows;
      result.vision_time = absl::Microseconds(10) * work.vision_patches;
      cost_.Observe(work, result);
    }
    budget_.seconds = 0.2;
    budget_.prefill_tokens = 512;
    budget_.by_service = true;
  }

  static ExecutorInfo Info() {
    ExecutorInfo info;
    info.num_layers = 4;
    info.hidden_size = 64;
    info.num_q_heads = 4;
    info.num_kv_heads = 2;
    info.head_dim = 16;
    return info;
  }

  static SequenceView Decode(uint64_t id) {
    SequenceView view;
    view.id = SequenceId{id};
    view.decode = true;
    view.kv_tokens = 10;
    return view;
  }
  static SequenceView Prefill(uint64_t id, int prompt, int next = 0, double service = 0) {
    SequenceView view;
    view.id = SequenceId{id};
    view.prompt_tokens = prompt;
    view.next_token = next;
    view.num_layers = 4;
    view.service = service;
    return view;
  }
  static SequenceView Layerwise(uint64_t id, int prompt, int next_layer = 0) {
    SequenceView view = Prefill(id, prompt);
    view.layerwise = true;
    view.next_layer = next_layer;
    return view;
  }
  StepPlan Plan(std::vector<SequenceView> views) { return PlanStep(views, budget_, cost_).plan; }

  CostModel cost_;
  StepBudget budget_;
};

TEST_F(SchedulerTest, NothingRunningGivesAnEmptyPlan) {
  const StepPlan plan = Plan({});
  EXPECT_TRUE(plan.decode.empty() && plan.prefill.empty() && plan.vision.empty());
}

TEST_F(SchedulerTest, EveryDecodeRowTakesPart) {
  const StepPlan plan = Plan({Decode(1), Prefill(2, 100), Decode(3)});
  EXPECT_EQ(plan.decode, (std::vector<SequenceId>{{1}, {3}}));
  ASSERT_EQ(plan.prefill.size(), 1u);
}

TEST_F(SchedulerTest, ALongPrefillIsCutAtAPageBorderWithinTheTimeBudget) {
  const StepPlan plan = Plan({Decode(1), Prefill(2, 10000)});
  ASSERT_EQ(plan.prefill.size(), 1u);
  EXPECT_EQ(plan.prefill[0].token_begin, 0);
  EXPECT_EQ(plan.prefill[0].token_end, 192);  // 195 ms are left at 1 ms a token
  EXPECT_EQ(plan.prefill[0].layer_end, 4);
}

TEST_F(SchedulerTest, TheTokenLimitCutsToo) {
  budget_.seconds = 100;
  EXPECT_EQ(Plan({Prefill(2, 10000)}).prefill[0].token_end, 512);
  EXPECT_EQ(Plan({Prefill(2, 10000, 512)}).prefill[0].token_end, 1024);
  EXPECT_EQ(Plan({Prefill(2, 1100, 1024)}).prefill[0].token_end, 1100);
}

TEST_F(SchedulerTest, TheFirstPrefillMovesAPageWhateverItCosts) {
  budget_.seconds = 0.001;
  budget_.min_prefill_to_decode = 0;
  const StepPlan plan = Plan({Decode(1), Prefill(2, 1000), Prefill(3, 1000)});
  ASSERT_EQ(plan.prefill.size(), 1u);
  EXPECT_EQ(plan.prefill[0].token_end, 64);
}

TEST_F(SchedulerTest, PrefillsKeepTheirShareBesideManyDecodes) {
  std::vector<SequenceView> views;
  for (uint64_t id = 1; id <= 100; ++id) views.push_back(Decode(id));  // 500 ms of decodes
  views.push_back(Prefill(200, 10000));
  EXPECT_EQ(Plan(views).prefill[0].token_end, 512);  // 3.5 s would fit, the token limit holds
}

TEST_F(SchedulerTest, TheOneThatReceivedLeastGoesFirstAndOthersFillUp) {
  const StepPlan plan =
      Plan({Prefill(1, 1000, 512, 0.5), Prefill(2, 100, 0, 0.1), Prefill(3, 5000, 64, 0.2)});
  ASSERT_EQ(plan.prefill.size(), 2u);
  EXPECT_EQ(plan.prefill[0].sequence, SequenceId{2});
  EXPECT_EQ(plan.prefill[0].token_end, 100);
  EXPECT_EQ(plan.prefill[1].sequence, SequenceId{3});
  EXPECT_EQ(plan.prefill[1].token_end, 128);
}

TEST_F(SchedulerTest, LayerwisePrefillIsCutByLayers) {
  StepPlan plan = Plan({Layerwise(1, 240)});  // 60 ms a layer, 200 ms
  ASSERT_EQ(plan.prefill.size(), 1u);
  EXPECT_EQ(plan.prefill[0].token_end, 240);
  EXPECT_EQ(plan.prefill[0].layer_begin, 0);
  EXPECT_EQ(plan.prefill[0].layer_end, 3);
  plan = Plan({Layerwise(1, 4000, 2)});  // 1 s a layer: one all the same
  EXPECT_EQ(plan.prefill[0].layer_begin, 2);
  EXPECT_EQ(plan.prefill[0].layer_end, 3);
}

TEST_F(SchedulerTest, TheBestRankedGoesFirstAndTheOthersFillTheRoom) {
  budget_.by_service = false;
  SequenceView late = Prefill(1, 1000), soon = Prefill(2, 100);
  late.rank = 5;
  soon.rank = -5;
  late.service = 0;
  soon.service = 100;
  PlannedStep planned = PlanStep(std::vector<SequenceView>{late, soon}, budget_, cost_);
  ASSERT_EQ(planned.plan.prefill.size(), 2u);
  EXPECT_EQ(planned.plan.prefill[0].sequence, SequenceId{2});
  EXPECT_TRUE(planned.full);
  planned = PlanStep(std::vector<SequenceView>{soon}, budget_, cost_);
  EXPECT_FALSE(planned.full);
  soon.prompt_tokens = 3000;
  planned = PlanStep(std::vector<SequenceView>{late, soon}, budget_, cost_);
  ASSERT_EQ(planned.plan.prefill.size(), 1u);
  EXPECT_EQ(planned.plan.prefill[0].sequence, SequenceId{2});
}

TEST_F(SchedulerTest, TwoLayerwisePrefillsTakeTurns) {
  std::map<uint64_t, SequenceView> views = {{1, Layerwise(1, 2000)}, {2, Layerwise(2, 2000)}};
  std::vector<uint64_t> order;
  for (int step = 0; step < 8; ++step) {
    std::vector<SequenceView> running;
    for (const auto& [id, view] : views) {
      if (view.next_layer < 4) running.push_back(view);
    }
    const PlannedStep planned = PlanStep(running, budget_, cost_);
    ASSERT_EQ(planned.plan.prefill.size(), 1u);
    SequenceView& view = views[planned.plan.prefill[0].sequence.value];
    order.push_back(view.id.value);
    view.next_layer = planned.plan.prefill[0].layer_end;
    view.service += planned.charges[0].second;
  }
  EXPECT_EQ(order, (std::vector<uint64_t>{1, 2, 1, 2, 1, 2, 1, 2}));
}

TEST_F(SchedulerTest, VisionComesBeforePrefillAndIsCutByTemporalPatches) {
  const SequenceView::VisualView visual[] = {{0, 2, 50, 50, 1000}};  // 10 ms a temporal patch
  SequenceView view = Prefill(1, 3000);
  view.visuals = visual;
  StepPlan plan = Plan({view});
  ASSERT_EQ(plan.vision.size(), 1u);
  EXPECT_EQ(plan.vision[0].t_begin, 2);
  EXPECT_NEAR(plan.vision[0].t_end, 22, 1);
  EXPECT_TRUE(plan.prefill.empty());

  const SequenceView::VisualView last[] = {{0, 45, 50, 50, 1000}};
  view.visuals = last;
  plan = Plan({view});
  ASSERT_EQ(plan.vision.size(), 1u);
  EXPECT_EQ(plan.vision[0].t_end, 50);
  ASSERT_EQ(plan.prefill.size(), 1u);  // what is left goes to its tokens
  EXPECT_EQ(plan.prefill[0].token_end, 128);
}

TEST_F(SchedulerTest, PatchesThatAreNotReadyAreNotPlanned) {
  const SequenceView::VisualView some[] = {{0, 2, 50, 5, 1000}};
  SequenceView view = Prefill(1, 3000);
  view.visuals = some;
  StepPlan plan = Plan({view});
  ASSERT_EQ(plan.vision.size(), 1u);
  EXPECT_EQ(plan.vision[0].t_end, 5);
  EXPECT_TRUE(plan.prefill.empty());

  // Who waits for patches moves nothing, and the unit that is always due goes to the next one.
  const SequenceView::VisualView none[] = {{0, 5, 50, 5, 1000}, {1, 0, 4, 4, 1000}};
  view.visuals = none;
  EXPECT_TRUE(Plan({view}).vision.empty());
  SequenceView other = Prefill(2, 3000);
  other.service = 1;
  budget_.seconds = 0;
  plan = Plan({view, other});
  EXPECT_TRUE(plan.vision.empty());
  ASSERT_EQ(plan.prefill.size(), 1u);
  EXPECT_EQ(plan.prefill[0].sequence, SequenceId{2});
}

TEST_F(SchedulerTest, IsAFunctionOfItsArguments) {
  const std::vector<SequenceView> views = {Decode(4), Prefill(1, 700), Prefill(2, 700)};
  const PlannedStep a = PlanStep(views, budget_, cost_), b = PlanStep(views, budget_, cost_);
  EXPECT_EQ(a.plan.decode, b.plan.decode);
  ASSERT_EQ(a.plan.prefill.size(), b.plan.prefill.size());
  EXPECT_EQ(a.plan.prefill[0].token_end, b.plan.prefill[0].token_end);
  EXPECT_DOUBLE_EQ(a.seconds, b.seconds);
}

}  // namespace
}  // namespace videonsa
