// Fits to measurements: synthetic truths, noise, inputs that tell too little; and the measuring.
#include "runtime/engine/warm_up.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "runtime/engine/engine_core.h"
#include "tests/support/fake_executor.h"

namespace videonsa {
namespace {

/// What steps cost on some machine.
struct Truth {
  double patch, slice, token, pair, pass, row, cached;

  double Vision(double patches) const { return slice + patch * patches; }
  double Prefill(double tokens, double pairs) const {
    return slice + token * tokens + pair * pairs;
  }
  double Decode(double rows, double kv) const { return pass + row * rows + cached * kv; }
};

constexpr Truth kTruths[] = {
    {4e-5, 3e-4, 9e-5, 3e-8, 5e-4, 1.2e-4, 1e-7},       // a small model on two cores
    {8e-3, 5e-3, 4e-2, 2e-6, 9e-1, 2e-2, 3e-6},         // a large one there
    {2.2e-6, 2e-4, 2.3e-5, 6.7e-10, 3.8e-3, 0, 1.5e-8}  // a GPU: rows cost nothing
};

ExecutorInfo Info() {
  ExecutorInfo info;
  info.num_layers = 16;
  info.hidden_size = 1024;
  info.num_q_heads = 16;
  info.num_kv_heads = 4;
  info.head_dim = 64;
  return info;
}

CostSample Vision(const Truth& truth, double patches) {
  CostSample sample;
  sample.work.vision_slices = 1;
  sample.work.vision_patches = patches;
  sample.vision_seconds = truth.Vision(patches);
  return sample;
}
CostSample Prefill(const Truth& truth, double tokens, double before) {
  CostSample sample;
  sample.work.prefill_slices = 1;
  sample.work.prefill_tokens = tokens;
  sample.work.prefill_pairs = tokens * before + tokens * tokens / 2;
  sample.prefill_seconds = truth.Prefill(tokens, sample.work.prefill_pairs);
  return sample;
}
CostSample Decode(const Truth& truth, double rows, double kv) {
  CostSample sample;
  sample.work.decode_rows = rows;
  sample.work.decode_kv_tokens = rows * kv;
  sample.decode_seconds = truth.Decode(rows, rows * kv);
  return sample;
}

std::vector<CostSample> Measurements(const Truth& truth) {
  std::vector<CostSample> samples;
  for (const double patches : {256, 256, 512, 1024}) samples.push_back(Vision(truth, patches));
  for (const double tokens : {16, 32, 48, 64, 128, 256, 512}) {
    samples.push_back(Prefill(truth, tokens, 0));
    samples.push_back(Prefill(truth, tokens, 4 * tokens));
  }
  for (const double rows : {1, 1, 2, 4, 8, 16}) {
    samples.push_back(Decode(truth, rows, 20));
    samples.push_back(Decode(truth, std::min(rows, 4.0), 1000));
  }
  return samples;
}

void Expect(const CostModel& model, const Truth& truth, double tolerance) {
  const auto near = [&](double predicted, double real, const char* what) {
    EXPECT_LT(std::abs(predicted - real) / real, tolerance)
        << what << " " << predicted << " " << real;
  };
  near(model.VisionSeconds(2048), truth.Vision(2048), "vision");
  near(model.PrefillSeconds(32, 512), truth.Prefill(32, 512), "short prefill");
  near(model.PrefillSeconds(512, 512 * 2000), truth.Prefill(512, 512 * 2000), "long prefill");
  near(model.DecodeSeconds(1, 100), truth.Decode(1, 100), "one row");
  near(model.DecodeSeconds(16, 16 * 100), truth.Decode(16, 16 * 100), "sixteen rows");
  near(model.DecodeSeconds(4, 4 * 1500), truth.Decode(4, 4 * 1500), "long caches");
}

void ExpectSane(const CostModel& model) {
  for (const double seconds :
       {model.VisionSeconds(1000), model.PrefillSeconds(512, 1e6), model.PrefillSeconds(1, 1),
        model.DecodeSeconds(1, 10), model.DecodeSeconds(64, 1e6)}) {
    EXPECT_TRUE(std::isfinite(seconds) && seconds >= 0) << seconds;
  }
  EXPECT_GE(model.PrefillSeconds(512, 1e6), model.PrefillSeconds(256, 1e5));
  EXPECT_GE(model.DecodeSeconds(16, 1e5), model.DecodeSeconds(1, 1e3));
}

TEST(CostFit, FindsTheTruthOfAnyMachine) {
  for (const Truth& truth : kTruths) {
    CostModel model(Info());
    model.Fit(Measurements(truth));
    EXPECT_TRUE(model.calibrated());
    EXPECT_LT(model.relative_error(), 0.06);
    Expect(model, truth, 0.12);
  }
}

TEST(CostFit, IsAFunctionOfTheSamplesAlone) {
  const std::vector<CostSample> samples = Measurements(kTruths[0]);
  CostModel fresh(Info()), again(Info());
  fresh.Fit(samples);
  again.Fit(Measurements(kTruths[0]));
  EXPECT_EQ(fresh.ToString(), again.ToString());
}

TEST(CostFit, StandsNoiseAndStepsThatWereHeldUp) {
  std::mt19937 random(11);
  std::normal_distribution<double> noise(0, 0.1);
  for (const Truth& truth : kTruths) {
    for (int round = 0; round < 20; ++round) {
      std::vector<CostSample> samples = Measurements(truth);
      for (size_t i = 0; i < samples.size(); ++i) {
        const double factor = std::exp(noise(random)) * (random() % 7 == 0 ? 6 : 1);
        samples[i].vision_seconds *= i < 4 ? 1 : factor;  // too few to tell who was held up
        samples[i].prefill_seconds *= factor;
        samples[i].decode_seconds *= factor;
      }
      CostModel model(Info());
      model.Fit(samples);
      Expect(model, truth, 0.5);
      ExpectSane(model);
    }
  }
}

// All alike, one only, times of nothing, numbers that are none.
TEST(CostFit, StandsInputsThatTellTooLittle) {
  const Truth& truth = kTruths[0];
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinite = std::numeric_limits<double>::infinity();
  std::vector<std::vector<CostSample>> cases;
  cases.emplace_back(20, Prefill(truth, 256, 256));
  cases.emplace_back(20, Decode(truth, 4, 500));
  cases.push_back({Prefill(truth, 64, 0)});
  std::vector<CostSample> proportional;
  for (const double tokens : {16, 32, 64, 128}) {
    CostSample sample = Prefill(truth, tokens, 0);
    sample.work.prefill_slices = tokens / 16;
    sample.work.prefill_pairs = 100 * tokens;
    sample.prefill_seconds = truth.token * tokens;
    proportional.push_back(sample);
  }
  cases.push_back(proportional);
  std::vector<CostSample> broken = Measurements(truth);
  for (const double seconds : {0.0, -1.0, nan, infinite}) {
    CostSample sample = Prefill(truth, 64, 0);
    sample.prefill_seconds = seconds;
    broken.push_back(sample);
  }
  cases.push_back(broken);
  for (const std::vector<CostSample>& samples : cases) {
    CostModel model(Info());
    model.Fit(samples);
    ExpectSane(model);
    // What was measured is predicted, whichever coefficient it is put down to.
    EXPECT_LT(std::abs(model.StepSeconds(samples[0].work) /
                           (samples[0].prefill_seconds + samples[0].decode_seconds +
                            samples[0].vision_seconds) -
                       1),
              0.2);
  }
  CostModel untouched(Info()), guess(Info());
  untouched.Fit({});
  EXPECT_EQ(untouched.ToString(), guess.ToString());
  EXPECT_FALSE(untouched.calibrated());
}

// An hour of one answer whose steps vary by a fifth: what batches and long prompts cost is known
// as well as before.
TEST(CostFit, ManyStepsOfOneKindDoNotSpoilTheOthers) {
  const Truth& truth = kTruths[0];
  CostModel model(Info());
  model.Fit(Measurements(truth));
  std::mt19937 random(12);
  std::normal_distribution<double> noise(0, 0.2);
  for (int i = 0; i < 3000; ++i) {
    CostSample sample = Decode(truth, 1, 500 + i % 100);
    StepResult result;
    result.decode_time = absl::Seconds(sample.decode_seconds * std::exp(noise(random)));
    model.Observe(sample.work, result);
    sample = Prefill(truth, 64, 0);
    result = {};
    result.prefill_time = absl::Seconds(sample.prefill_seconds * std::exp(noise(random)));
    model.Observe(sample.work, result);
  }
  Expect(model, truth, 0.35);
}

TEST(CostFit, FollowsAMachineThatBecomesSlower) {
  const Truth& truth = kTruths[0];
  CostModel model(Info());
  model.Fit(Measurements(truth));
  const Truth slower = {3 * truth.patch, 3 * truth.slice, 3 * truth.token, 3 * truth.pair,
                        3 * truth.pass,  3 * truth.row,   3 * truth.cached};
  for (int i = 0; i < 200; ++i) {
    for (const CostSample& sample :
         {Decode(slower, 2, 300), Prefill(slower, 256, 512), Vision(slower, 512)}) {
      StepResult result;
      result.vision_time = absl::Seconds(sample.vision_seconds);
      result.prefill_time = absl::Seconds(sample.prefill_seconds);
      result.decode_time = absl::Seconds(sample.decode_seconds);
      model.Observe(sample.work, result);
    }
  }
  EXPECT_LT(model.relative_error(), 0.1);
  Expect(model, slower, 0.3);
}

class MeasureCostsTest : public ::testing::Test {
 protected:
  MeasureCostsTest() {
    fake_.info = SmallExecutorInfo();
    fake_.info.num_pages = 400;
    fake_.info.max_context_tokens = 16384;
  }

  static double Seconds(const std::vector<CostSample>& samples) {
    double sum = 0;
    for (const CostSample& sample : samples) {
      sum += sample.vision_seconds + sample.prefill_seconds + sample.decode_seconds;
    }
    return sum;
  }

  FakeExecutorOptions fake_;
  WarmUpOptions options_{.seconds = 0.3, .prefill_tokens = 512, .vision_token_id = 7};
};

// The fake takes 1 us a patch, 10 us a prefill token, 50 us a row.
TEST_F(MeasureCostsTest, FindsWhatTheExecutorTakes) {
  for (const AttentionSemantics semantics :
       {AttentionSemantics::kDense, AttentionSemantics::kCausalNsa,
        AttentionSemantics::kReleasedNsa}) {
    fake_.info.semantics = semantics;
    fake_.info.selected_blocks = 4;
    fake_.info.window_tokens = 64;
    FakeExecutor executor(fake_);
    const auto samples = MeasureCosts(executor, options_);
    ASSERT_TRUE(samples.ok()) << samples.status();
    EXPECT_EQ(executor.num_sequences(), 0);
    EXPECT_LE(Seconds(*samples), options_.seconds);
    CostModel cost(fake_.info);
    cost.Fit(*samples);
    EXPECT_LT(cost.relative_error(), 0.05) << cost.ToString();
    EXPECT_NEAR(cost.PrefillSeconds(1000, 300'000), 0.01, 0.002) << cost.ToString();
    EXPECT_NEAR(cost.DecodeSeconds(10, 1000), 500e-6, 50e-6) << cost.ToString();
    EXPECT_NEAR(cost.VisionSeconds(4096), 4096e-6, 300e-6) << cost.ToString();
  }
}

TEST_F(MeasureCostsTest, KeepsToTheTimeWhateverTheModel) {
  for (const double seconds : {1e-9, 1e-4, 1e-3, 0.01, 0.1, 1.0}) {
    options_.seconds = seconds;
    FakeExecutor executor(fake_);
    const auto samples = MeasureCosts(executor, options_);
    ASSERT_TRUE(samples.ok());
    EXPECT_EQ(executor.num_sequences(), 0);
    ASSERT_GE(samples->size(), 1u);
    EXPECT_LE(Seconds(*samples), std::max(1.2 * seconds, 161e-6)) << samples->size();
  }
  options_.seconds = 0;
  FakeExecutor executor(fake_);
  EXPECT_TRUE(MeasureCosts(executor, options_)->empty());
  EXPECT_EQ(executor.num_runs(), 0);
}

TEST_F(MeasureCostsTest, StandsLittleMemoryRefusalsAndNoVision) {
  for (const int pages : {0, 1, 2, 3, 5, 17, 40}) {
    fake_.info.num_pages = pages;
    fake_.info.max_context_tokens = std::max(pages * kPageTokens, 1);
    FakeExecutor executor(fake_);
    EXPECT_TRUE(MeasureCosts(executor, options_).ok()) << pages;
    EXPECT_EQ(executor.num_sequences(), 0) << pages;
  }
  fake_.info.num_pages = 400;
  for (const size_t longest : {0u, 20u, 600u}) {
    fake_.refuse = [longest](const SequenceSpec& spec) { return spec.token_ids.size() > longest; };
    FakeExecutor executor(fake_);
    EXPECT_TRUE(MeasureCosts(executor, options_).ok()) << longest;
    EXPECT_EQ(executor.num_sequences(), 0) << longest;
  }
  fake_.refuse = nullptr;
  options_.vision_token_id = -1;
  FakeExecutor executor(fake_);
  const auto samples = MeasureCosts(executor, options_);
  for (const CostSample& sample : *samples) EXPECT_EQ(sample.work.vision_patches, 0);
}

TEST_F(MeasureCostsTest, TellsThatTheDeviceIsLost) {
  for (const int run : {1, 2, 10}) {
    fake_.fail_at_run = run;
    FakeExecutor executor(fake_);
    EXPECT_EQ(MeasureCosts(executor, options_).status().code(), absl::StatusCode::kUnavailable);
  }
}

TEST_F(MeasureCostsTest, AnEngineBeginsWithWhatWasMeasured) {
  FakeExecutor executor(fake_);
  EngineOptions options;
  options.cost_samples = *MeasureCosts(executor, options_);
  const FakeClock clock;
  const EngineCore core(options, fake_.info, clock, nullptr);
  const CostModel cost = *core.Snapshot().cost;
  EXPECT_TRUE(cost.calibrated());
  EXPECT_EQ(cost.num_fitted(), static_cast<int64_t>(options.cost_samples.size()));
  EXPECT_NEAR(cost.PrefillSeconds(1000, 300'000), 0.01, 0.002);
  EXPECT_NE(cost.ToString().find("fitted to "), std::string::npos);
}

}  // namespace
}  // namespace videonsa
