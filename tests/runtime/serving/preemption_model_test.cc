// Preemption over the real CPU executor: a long answer of the batch class leaves for an interactive
// question, comes back, and its tokens are those of an undisturbed run.
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "tests/runtime/serving/model_runtime.h"
#include "tests/runtime/serving/serving_fixtures.h"
#include "tests/support/recording_sink.h"

namespace videonsa {
namespace {

constexpr int kTokens = 200;

GenerateRequest Question(const std::string& clip, int num_frames, Priority priority, int tokens) {
  VideoPart video;
  video.source = FakeSource(clip);
  video.sampling.num_frames = num_frames;
  ImagePart image;
  image.source = FakeSource(clip + " still");
  GenerateRequest request;
  request.tenant = "t";
  request.priority = priority;
  request.turns = {Turn{Role::kUser, {video, image, TextPart{"what is it?"}}, {}}};
  request.generation.max_output_tokens = tokens;
  request.generation.ignore_eos = true;
  request.generation.temperature = 0.8f;
  request.generation.seed = 3;
  request.generation.repetition_penalty = 1.1f;
  return request;
}

class PreemptionModelTest : public ::testing::TestWithParam<const char*> {
 protected:
  PreemptionModelTest() { WriteFolder(GetParam(), folder_); }

  static std::shared_ptr<RecordingSink> Submit(RuntimeImpl& runtime,
                                               const GenerateRequest& request) {
    auto sink = std::make_shared<RecordingSink>();
    EXPECT_TRUE(runtime.Submit(request, sink).ok());
    return sink;
  }
  static GenerateResult Result(RecordingSink& sink) {
    sink.Await();
    EXPECT_TRUE(sink.status().ok()) << sink.status();
    return sink.result();
  }

  test::TemporaryFolder folder_;
};

TEST_P(PreemptionModelTest, ABatchAnswerLeavesForAnInteractiveQuestionAndGoesOnIdentically) {
  const GenerateRequest batch = Question("long", 60, Priority::kBatch, kTokens);
  const GenerateRequest interactive = Question("short", 40, Priority::kInteractive, 30);
  GenerateResult alone, interactive_alone;
  {
    const auto runtime = FakeMediaRuntime(folder_, 1);
    alone = Result(*Submit(*runtime, batch));
    interactive_alone = Result(*Submit(*runtime, interactive));
  }
  ASSERT_EQ(alone.answer_ids.size(), static_cast<size_t>(kTokens));
  const int pages = static_cast<int>(
      std::max(alone.usage.kv_pages_peak, interactive_alone.usage.kv_pages_peak) + 1);
  for (const int depth : {1, 2}) {
    FakeMediaLoader* media = nullptr;
    // A buffer for whole clips, then one that makes streams of them.
    const int64_t buffer = depth == 1 ? int64_t{32} << 20 : int64_t{1} << 16;
    const auto runtime = FakeMediaRuntime(folder_, depth, buffer, &media, pages);
    for (int round = 0; round < 3; ++round) {
      const auto sink = Submit(*runtime, batch);
      while (sink->token_count() < 40 * round + 1 && !sink->finished()) {
        absl::SleepFor(absl::Milliseconds(1));
      }
      const auto other = Submit(*runtime, interactive);
      EXPECT_EQ(Result(*other).answer_ids, interactive_alone.answer_ids);
      EXPECT_FALSE(sink->finished()) << "the answer was too short to be disturbed";
      const GenerateResult result = Result(*sink);
      EXPECT_EQ(result.answer_ids, alone.answer_ids) << GetParam() << " round " << round;
      EXPECT_EQ(result.answer_text, alone.answer_text);
      EXPECT_EQ(sink->text(), alone.answer_text);
      EXPECT_EQ(sink->token_count(), kTokens);
      EXPECT_EQ(result.timing.preemptions, 1);
      EXPECT_GT(result.timing.preempted, absl::ZeroDuration());
      EXPECT_EQ(runtime->Stats().preemptions, round + 1);
      EXPECT_EQ(other->result().timing.preemptions, 0);
    }
    EXPECT_EQ(runtime->Drain(absl::Seconds(30)), 0);
    const EngineSnapshot snapshot = runtime->engine_snapshot();
    EXPECT_EQ(snapshot.pages_used, snapshot.pages_cached);
  }
}

INSTANTIATE_TEST_SUITE_P(Semantics, PreemptionModelTest,
                         ::testing::Values("dense", "causal_nsa", "released_nsa"));

}  // namespace
}  // namespace videonsa
