#include "runtime/engine/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace videonsa {
namespace {

ExecutorInfo Info() {
  ExecutorInfo info;
  info.num_layers = 16;
  info.hidden_size = 1024;
  info.num_q_heads = 16;
  info.num_kv_heads = 4;
  info.head_dim = 64;
  return info;
}

TEST(CostModel, LearnsALinearMachine) {
  CostModel model(Info());
  std::mt19937 random(5);
  const auto prefill = [](double n, double p) { return 0.004 + 1.5e-3 * n + 2e-8 * p; };
  const auto decode = [](double n, double k) { return 0.02 + 1e-3 * n + 3e-7 * k; };
  for (int step = 0; step < 300; ++step) {
    StepWork work;
    work.prefill_slices = 1;
    work.prefill_tokens = 64.0 * (1 + random() % 8);
    work.prefill_pairs = work.prefill_tokens * (1000 + random() % 30000);
    work.decode_rows = 1 + random() % 16;
    work.decode_kv_tokens = work.decode_rows * (random() % 4000);
    work.vision_slices = 1;
    work.vision_patches = random() % 2 == 0 ? 0 : 1024 * (1 + random() % 4);
    StepResult result;
    const double noise = 0.95 + 0.1 * (random() % 1000) / 1000.0;
    result.prefill_time = absl::Seconds(noise * prefill(work.prefill_tokens, work.prefill_pairs));
    result.decode_time = absl::Seconds(noise * decode(work.decode_rows, work.decode_kv_tokens));
    result.vision_time = absl::Seconds(noise * 2e-4 * work.vision_patches);
    model.Observe(work, result);
  }
  EXPECT_TRUE(model.calibrated());
  EXPECT_LT(model.relative_error(), 0.1);
  EXPECT_NEAR(model.PrefillSeconds(512, 512 * 16000), prefill(512, 512 * 16000), 0.08);
  EXPECT_NEAR(model.DecodeSeconds(8, 16000), decode(8, 16000), 0.004);
  EXPECT_NEAR(model.VisionSeconds(4096), 2e-4 * 4096, 0.06);
  EXPECT_NE(model.ToString().find("s/token"), std::string::npos);
}

// One step in five is held up by somebody else who computes on the machine: the others are still
// predicted well, short ones as well as long ones.
TEST(CostModel, StepsThatWereHeldUpDoNotSpoilTheOthers) {
  CostModel model(Info());
  std::mt19937 random(9);
  double worst_mean = 0;
  int quiet = 0;
  for (int step = 0; step < 400; ++step) {
    StepWork work;
    const bool last_piece = random() % 3 == 0;
    work.prefill_slices = 1;
    work.prefill_tokens = last_piece ? 20 : 512;
    work.prefill_pairs = work.prefill_tokens * (500 + random() % 2000);
    const double real = 1e-3 + 2e-4 * work.prefill_tokens + 1e-8 * work.prefill_pairs;
    const bool held_up = random() % 5 == 0;
    if (step > 200 && !held_up) {
      worst_mean += std::abs(model.StepSeconds(work) - real) / real;
      ++quiet;
    }
    StepResult result;
    result.prefill_time = absl::Seconds(held_up ? 4 * real : real);
    model.Observe(work, result);
  }
  EXPECT_LT(worst_mean / quiet, 0.2);
}

TEST(CostModel, TheFirstStepsTellHowFastTheMachineIs) {
  for (const double speed : {0.01, 1.0, 100.0}) {
    CostModel model(Info());
    StepWork work;
    work.prefill_slices = 1;
    work.prefill_tokens = 256;
    work.prefill_pairs = 65536;
    StepResult result;
    result.prefill_time = absl::Seconds(model.StepSeconds(work) / speed);
    for (int step = 0; step < 3; ++step) model.Observe(work, result);
    EXPECT_LT(model.Observe(work, result), 0.05) << speed;
  }
}

TEST(CostModel, NeverPredictsLessThanNothing) {
  CostModel model(Info());
  std::mt19937 random(6);
  for (int step = 0; step < 500; ++step) {
    StepWork work;
    work.prefill_slices = 1;
    work.prefill_tokens = 1 + random() % 512;
    work.prefill_pairs = random() % 1000000;
    StepResult result;
    result.prefill_time = absl::Microseconds(1 + random() % 1000000);  // no relation at all
    model.Observe(work, result);
    ASSERT_GE(model.PrefillSeconds(64, 0), 0);
    ASSERT_GE(model.PrefillSeconds(0, 0), 0);
    ASSERT_GE(model.PrefillSeconds(512, 1e8), model.PrefillSeconds(64, 0));
  }
}

}  // namespace
}  // namespace videonsa
