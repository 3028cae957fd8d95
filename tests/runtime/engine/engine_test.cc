// The engine with its threads, over a fake executor.
#include "runtime/engine/engine.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "absl/synchronization/notification.h"
#include "runtime/base/error.h"
#include "tests/support/engine_fixtures.h"
#include "tests/support/fake_executor.h"

namespace videonsa {
namespace {

std::string Reason(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  return info ? info->reason : "";
}

class EngineTest : public ::testing::Test {
 protected:
  void Start() {
    auto executor = std::make_unique<FakeExecutor>(fake_);
    executor_ = executor.get();
    engine_ = std::make_unique<Engine>(options_, std::move(executor), *clock_);
  }

  EngineTest() { fake_.info = SmallExecutorInfo(); }

  struct Asked {
    RequestId id;
    std::shared_ptr<RecordingStream> stream;
  };
  // Submits without a prompt.
  absl::StatusOr<Asked> Submit(absl::Duration deadline = absl::InfiniteDuration()) {
    Asked asked;
    asked.stream = std::make_shared<RecordingStream>();
    Request request;
    request.tenant = "t";
    request.receive = clock_->Monotonic();
    request.deadline = deadline;
    request.stream = asked.stream;
    absl::StatusOr<RequestId> id = engine_->Submit(std::move(request));
    if (!id.ok()) return id.status();
    asked.id = *id;
    return asked;
  }
  Asked Ask(const PromptShape& shape, absl::Duration deadline = absl::InfiniteDuration()) {
    absl::StatusOr<Asked> asked = Submit(deadline);
    VNSA_CHECK(asked.ok()) << asked.status();
    engine_->Ready(asked->id, MakePrompt(shape));
    return *std::move(asked);
  }
  std::vector<int32_t> Alone(const PromptShape& shape) {
    return FakeExecutor::AnswerAlone(MakePrompt(shape)->spec, fake_.info);
  }

  // Lets the executor run `steps` steps and then hold in the next one until Release.
  void HoldAfter(int steps) {
    fake_.on_run = [this, steps](const StepPlan&) {
      if (executor_->num_runs() >= steps && !released_.HasBeenNotified()) {
        if (!held_.HasBeenNotified()) held_.Notify();
        released_.WaitForNotification();
      }
    };
  }

  EngineOptions options_;
  FakeExecutorOptions fake_;
  FakeClock fake_clock_;
  const Clock* clock_ = &fake_clock_;
  absl::Notification held_, released_;
  FakeExecutor* executor_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

PromptShape LongAnswer(uint64_t seed = 1) {
  PromptShape shape;
  shape.seed = seed;
  shape.max_output_tokens = 500;
  shape.ignore_eos = true;
  return shape;
}

TEST_F(EngineTest, AnswersAsTheSequenceAlone) {
  Start();
  PromptShape shape;
  shape.frames = 30;
  const Asked asked = Ask(shape);
  asked.stream->AwaitFinish();
  EXPECT_TRUE(asked.stream->status().ok()) << asked.stream->status();
  EXPECT_EQ(asked.stream->tokens(), Alone(shape));
  const GenerateResult result = asked.stream->result();
  EXPECT_EQ(result.account.total().dense, result.account.dense_pairs);
  EXPECT_GT(result.account.dense_pairs, 0);  // the account came from the executor
  EXPECT_EQ(result.usage.kv_pages_peak, 3);  // 20 + 120 + 8 tokens
}

TEST_F(EngineTest, ThirtyTwoStreamsWithDisturbances) {
  for (const int depth : {1, 2}) {
    options_.plan_depth = depth;
    clock_ = &Clock::Real();
    Start();
    std::vector<Asked> asked(32);
    std::vector<std::thread> threads;
    for (int i = 0; i < 32; ++i) {
      threads.emplace_back([&, i] {
        PromptShape shape;
        shape.seed = static_cast<uint64_t>(i);
        shape.text_after = 10 + 20 * i;
        shape.frames = i % 4 * 10;
        shape.max_output_tokens = 30;
        shape.semantics =
            i % 3 == 0 ? AttentionSemantics::kReleasedNsa : AttentionSemantics::kCausalNsa;
        const absl::Duration deadline =
            i % 8 == 5 ? clock_->Monotonic() + absl::Milliseconds(i) : absl::InfiniteDuration();
        asked[i] = Ask(shape, deadline);
        if (i % 8 == 3) engine_->Cancel(asked[i].id);
        if (i % 8 == 6) engine_->Stop(asked[i].id);
        asked[i].stream->AwaitFinish();
        const std::vector<int32_t> got = asked[i].stream->tokens(), alone = Alone(shape);
        EXPECT_TRUE(got.size() <= alone.size() &&
                    std::equal(got.begin(), got.end(), alone.begin()));
        if (i % 8 != 5 && i % 8 != 3 && i % 8 != 6) {
          EXPECT_EQ(got, alone);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Asked& one : asked) EXPECT_EQ(one.stream->num_finishes(), 1);
    EXPECT_EQ(engine_->Drain(absl::Seconds(10)), 0);
    engine_.reset();
  }
}

TEST_F(EngineTest, CancelWorksBeforeMediaAndIsIdempotent) {
  Start();
  const Asked asked = *Submit();
  engine_->Cancel(asked.id);
  engine_->Cancel(asked.id);
  asked.stream->AwaitFinish();
  EXPECT_EQ(asked.stream->status().code(), absl::StatusCode::kCancelled);
  engine_->Ready(asked.id, MakePrompt({}));  // too late, dropped
  engine_->Cancel(asked.id);
  engine_->Cancel(RequestId{12345});
  const Asked next = Ask({});
  next.stream->AwaitFinish();
  EXPECT_TRUE(next.stream->status().ok());
}

TEST_F(EngineTest, CancelDuringAStepSetsTheFlagAtOnceAndEndsBeforeTheStepDoes) {
  HoldAfter(5);
  Start();
  const Asked asked = Ask(LongAnswer());
  held_.WaitForNotification();
  const auto flag = engine_->CancelFlag(asked.id);
  engine_->Cancel(asked.id);
  EXPECT_TRUE(flag->load());
  asked.stream->AwaitFinish();  // the step is still held
  EXPECT_EQ(asked.stream->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked.stream->tokens().size(), 5u);
  released_.Notify();
}

TEST_F(EngineTest, AFullQueueRefusesWithAdvice) {
  options_.max_waiting = 3;
  Start();
  std::vector<Asked> asked;
  for (int i = 0; i < 3; ++i) asked.push_back(*Submit());
  const absl::Status refused = Submit().status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Reason(refused), "QUEUE_FULL");
  EXPECT_TRUE(GetErrorInfo(refused)->retry_after.has_value());
  engine_->Ready(asked[0].id, MakePrompt({}));
  asked[0].stream->AwaitFinish();
  EXPECT_TRUE(Submit().ok());
}

TEST_F(EngineTest, ALostDeviceFailsEverybodyAndIsRemembered) {
  fake_.fail_at_run = 3;
  Start();
  const Asked running = Ask(LongAnswer());
  running.stream->AwaitFinish();
  EXPECT_EQ(running.stream->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Reason(running.stream->status()), "DEVICE_LOST");
  EXPECT_FALSE(engine_->Snapshot().failure.ok());
  EXPECT_EQ(Reason(Submit().status()), "DEVICE_LOST");
  EXPECT_EQ(engine_->Drain(absl::Seconds(10)), 0);
}

TEST_F(EngineTest, FailuresOfAGpuAreCountedAsSuch) {
  for (const int gpu : {-1, 0}) {
    fake_.info.gpu = gpu;
    fake_.fail_at_run = 3;
    MetricsRegistry metrics;
    engine_ = std::make_unique<Engine>(options_, std::make_unique<FakeExecutor>(fake_), *clock_,
                                       EngineMetrics::Create(metrics));
    Ask(LongAnswer()).stream->AwaitFinish();
    engine_.reset();
    const std::string lost = "videonsa_cuda_errors_total{kind=\"device_lost\"} ";
    EXPECT_NE(metrics.Text().find(lost + (gpu < 0 ? "0" : "1")), std::string::npos) << gpu;
  }
}

TEST_F(EngineTest, WhatCanNeverFitIsRefusedWithNumbers) {
  fake_.info.num_pages = 4;
  Start();
  PromptShape shape;
  shape.text_after = 300;
  const Asked asked = Ask(shape);
  asked.stream->AwaitFinish();
  EXPECT_EQ(Reason(asked.stream->status()), "KV_TOO_SMALL");
  EXPECT_NE(asked.stream->status().message().find("needs 5 pages"), std::string::npos);
  shape.text_after = 5000;
  const Asked longer = Ask(shape);
  longer.stream->AwaitFinish();
  EXPECT_EQ(Reason(longer.stream->status()), "CONTEXT_TOO_LONG");
}

TEST_F(EngineTest, DrainWaitsThenEndsTheRestWithWhatTheyHave) {
  HoldAfter(5);
  Start();
  const Asked decoding = Ask(LongAnswer());
  held_.WaitForNotification();
  const Asked waiting = *Submit();
  std::thread drain([&] { EXPECT_EQ(engine_->Drain(absl::ZeroDuration()), 2); });
  waiting.stream->AwaitFinish();
  EXPECT_EQ(Reason(waiting.stream->status()), "DRAINING");
  released_.Notify();
  drain.join();
  EXPECT_TRUE(decoding.stream->finished());
  EXPECT_TRUE(decoding.stream->status().ok());
  EXPECT_EQ(decoding.stream->result().finish_reason, FinishReason::kDrain);
  EXPECT_EQ(Reason(Submit().status()), "DRAINING");
}

TEST_F(EngineTest, DrainLetsWorkInFlightFinish) {
  Start();
  std::vector<Asked> asked;
  for (uint64_t i = 0; i < 8; ++i) asked.push_back(Ask(LongAnswer(i)));
  EXPECT_EQ(engine_->Drain(absl::InfiniteDuration()), 0);
  for (const Asked& one : asked) {
    EXPECT_TRUE(one.stream->status().ok());
    EXPECT_EQ(one.stream->tokens().size(), 500u);
  }
}

TEST_F(EngineTest, DestructionEndsEverything) {
  HoldAfter(5);
  Start();
  const Asked decoding = Ask(LongAnswer());
  held_.WaitForNotification();
  const Asked waiting = *Submit();
  released_.Notify();
  engine_.reset();
  EXPECT_TRUE(decoding.stream->finished());
  EXPECT_TRUE(waiting.stream->finished());
}

TEST_F(EngineTest, TheSecondEqualQuestionReusesPagesOfItsTenantOnly) {
  Start();
  PromptShape shape;
  shape.frames = 100;
  const Asked first = Ask(shape);
  first.stream->AwaitFinish();
  const Asked second = Ask(shape);
  second.stream->AwaitFinish();
  EXPECT_EQ(first.stream->result().kv_reuse, KvReuse::kNone);
  EXPECT_EQ(second.stream->result().kv_reuse, KvReuse::kExact);
  EXPECT_EQ(second.stream->result().usage.cached_prompt_tokens, 384);  // 420 prompt tokens
  EXPECT_EQ(second.stream->tokens(), first.stream->tokens());
  shape.tenant = "other";
  const Asked other = Ask(shape);
  other.stream->AwaitFinish();
  EXPECT_EQ(other.stream->result().kv_reuse, KvReuse::kNone);
}

}  // namespace
}  // namespace videonsa
