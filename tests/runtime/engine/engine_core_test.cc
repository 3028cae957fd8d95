// The engine's core step by step, with a clock that stands still.
#include "runtime/engine/engine_core.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "tests/runtime/engine/core_fixture.h"

namespace videonsa {
namespace {

TEST(SequencePhase, HasExactlyTheTransitionsOfTheTable) {
  using P = SequencePhase;
  int edges = 0;
  for (int from = 0; from < 5; ++from) {
    for (int to = 0; to < 5; ++to) edges += MayFollow(P(from), P(to));
  }
  EXPECT_EQ(edges, 9);
  EXPECT_TRUE(MayFollow(P::kWaitingMedia, P::kWaiting));
  EXPECT_TRUE(MayFollow(P::kDecode, P::kFinished));
  EXPECT_TRUE(MayFollow(P::kDecode, P::kWaiting));
  EXPECT_FALSE(MayFollow(P::kDecode, P::kPrefill));
  EXPECT_FALSE(MayFollow(P::kFinished, P::kFinished));
}

TEST_F(EngineCoreTest, RunningAnswersGoOnBesideALongPrefill) {
  Start();
  PromptShape quick;
  quick.max_output_tokens = 100;
  quick.ignore_eos = true;
  const auto answering = Ask(1, quick);
  Step();
  PromptShape slow;
  slow.text_after = 3000;
  Ask(2, slow);
  int steps = 0;
  while (true) {
    const StepPlan plan = Step();
    if (plan.prefill.empty()) break;
    ++steps;
    EXPECT_EQ(plan.decode.front(), SequenceId{1});  // every step of the prefill has a token
    EXPECT_LE(plan.prefill[0].token_end - plan.prefill[0].token_begin, 512);
  }
  EXPECT_GE(steps, 6);
}

TEST_F(EngineCoreTest, ABlockedHeadIsBypassedABoundedNumberOfTimes) {
  fake_.info.num_pages = 16;
  Start();
  PromptShape hog;  // holds 9 of 16 pages for a long time
  hog.text_after = 64;
  hog.max_output_tokens = 500;
  hog.ignore_eos = true;
  const auto first = Ask(1, hog);
  Step();
  PromptShape big;  // needs 10
  big.text_after = 600;
  const auto head = Ask(2, big);
  clock_.Advance(absl::Seconds(600));  // those that come now rank behind it
  std::vector<std::shared_ptr<RecordingStream>> small;
  for (uint64_t i = 0; i < 40; ++i) {
    PromptShape shape;
    shape.max_output_tokens = 1;
    small.push_back(Ask(3 + i, shape));
  }
  for (int step = 0; step < 200; ++step) Step();
  int done = 0;
  for (const auto& stream : small) done += stream->finished();
  EXPECT_FALSE(head->finished());
  EXPECT_EQ(done, 16);  // then everybody waits for the head
  while (!head->finished()) ASSERT_GT(Step().step, 0u);
  EXPECT_TRUE(head->status().ok());
}

TEST_F(EngineCoreTest, DeadlinesEndARequestInEveryPhase) {
  fake_.info.num_pages = 16;
  Start();
  PromptShape long_answer;
  long_answer.max_output_tokens = 900;
  long_answer.ignore_eos = true;
  const absl::Duration deadline = absl::Seconds(1);
  const auto decoding = Ask(1, long_answer, Priority::kStandard, deadline);
  Step();
  Step();
  const auto waiting = Ask(2, long_answer, Priority::kStandard, deadline);
  Step();
  EXPECT_EQ(core_->Snapshot().waiting, 1);
  EXPECT_EQ(core_->NextDeadline(), deadline);
  clock_.Advance(absl::Seconds(2));
  core_->Handle(TickMessage{});
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kDeadlineExceeded);
  Step();
  ASSERT_TRUE(decoding->finished());
  EXPECT_TRUE(decoding->status().ok());  // it has a part of its answer
  EXPECT_EQ(decoding->result().finish_reason, FinishReason::kDeadline);
  EXPECT_EQ(decoding->tokens().size(), 3u);
  EXPECT_EQ(core_->num_open(), 0);
}

TEST_F(EngineCoreTest, DeadlinesEndVisionPrefillAndTheMediaStageToo) {
  options_.step.seconds = 1e-6;  // one unit a step
  Start();
  PromptShape shape;
  shape.frames = 10;
  shape.text_after = 600;
  const absl::Duration deadline = absl::Seconds(1);
  const auto encoding = Ask(1, shape, Priority::kInteractive, deadline);
  EXPECT_EQ(Step().vision.size(), 1u);
  shape.frames = 0;
  shape.seed = 2;
  const auto prefilling = Ask(2, shape, Priority::kInteractive, deadline);
  for (int step = 0; step < 6; ++step) Step();
  auto loading = std::make_shared<RecordingStream>();
  Request request;
  request.id = RequestId{3};
  request.tenant = "t";
  request.deadline = deadline;
  request.stream = loading;
  request.cancelled = std::make_shared<std::atomic<bool>>(false);
  core_->Handle(SubmitMessage{std::move(request), 0});
  EXPECT_EQ(core_->Snapshot().waiting_media, 1);
  EXPECT_EQ(core_->Snapshot().running, 2);
  std::optional<WorkerJob> under_way = core_->NextJob();
  clock_.Advance(absl::Seconds(2));
  core_->Handle(TickMessage{});
  for (const auto& stream : {encoding, prefilling, loading}) {
    ASSERT_TRUE(stream->finished());
    EXPECT_EQ(GetErrorInfo(stream->status())->reason, "DEADLINE_EXPIRED");
    EXPECT_TRUE(stream->tokens().empty());
  }
  if (under_way) {
    runner_->Run(*std::move(under_way), [this](WorkerEvent event) {
      std::visit([this](auto&& e) { core_->Handle(EngineMessage(std::move(e))); },
                 std::move(event));
    });
  }
  while (core_->num_open() > 0) ASSERT_GT(Step().step, 0u);
  EXPECT_EQ(core_->admission().pool().num_used(), core_->admission().index().size());
  // Its media may still come; nobody is there.
  core_->Handle(ReadyMessage{RequestId{3}, MakePrompt(shape)});
  EXPECT_EQ(core_->num_open(), 0);
}

TEST_F(EngineCoreTest, OnePageTooFewIsRefusedWithTheNumbersAndOneMoreIsEnough) {
  PromptShape shape;
  shape.text_after = 10 * 64 - 20;
  shape.max_output_tokens = 11;  // the last one takes an eleventh page
  const std::unique_ptr<PreparedPrompt> prompt = MakePrompt(shape);
  for (const int pages : {10, 11}) {
    fake_.info.num_pages = pages;
    Start();
    const auto stream = Ask(1, shape);
    for (int step = 0; step < 100 && !stream->finished(); ++step) Step();
    ASSERT_TRUE(stream->finished());
    if (pages == 11) {
      EXPECT_EQ(stream->tokens(), FakeExecutor::AnswerAlone(prompt->spec, fake_.info));
      continue;
    }
    const std::optional<ErrorInfo> info = GetErrorInfo(stream->status());
    ASSERT_TRUE(info.has_value());
    EXPECT_EQ(info->reason, "KV_TOO_SMALL");
    EXPECT_EQ(core_->num_open(), 0);
  }
}

TEST_F(EngineCoreTest, ClocksThatJumpEndOnlyWhatHasADeadline) {
  Start();
  PromptShape shape;
  shape.max_output_tokens = 40;
  shape.ignore_eos = true;
  const auto patient = Ask(1, shape);
  const auto other = Ask(2, shape, Priority::kStandard, clock_.Monotonic() + absl::Hours(1));
  while (patient->tokens().size() < 5) Step();
  // An administrator sets the clock: nobody's time passes.
  for (const absl::Duration jump : {absl::Hours(-30), absl::Hours(500)}) {
    clock_.JumpWallClock(jump);
    core_->Handle(TickMessage{});
    Step();
    EXPECT_FALSE(other->finished());
  }
  // The machine slept.
  clock_.Advance(absl::Hours(30));
  core_->Handle(TickMessage{});
  while (!patient->finished()) ASSERT_GT(Step().step, 0u);
  ASSERT_TRUE(other->finished());
  EXPECT_EQ(other->result().finish_reason, FinishReason::kDeadline);
  EXPECT_EQ(patient->tokens(), FakeExecutor::AnswerAlone(MakePrompt(shape)->spec, fake_.info));
  EXPECT_EQ(core_->num_open(), 0);
}

TEST_F(EngineCoreTest, WhatCannotFinishInTimeIsRefusedOnceTheCostIsKnown) {
  fake_.clock = &clock_;
  Start();
  PromptShape shape;
  shape.text_after = 100;
  shape.max_output_tokens = 100;
  shape.ignore_eos = true;
  const auto first = Ask(1, shape);
  while (!first->finished()) Step();
  shape.text_after = 3000;  // 10 us a token: 30 ms
  const auto refused =
      Ask(2, shape, Priority::kStandard, clock_.Monotonic() + absl::Milliseconds(9));
  EXPECT_EQ(GetErrorInfo(refused->status())->reason, "DEADLINE_TOO_SHORT");
  const auto taken = Ask(3, shape, Priority::kStandard, clock_.Monotonic() + absl::Seconds(9));
  while (!taken->finished()) Step();
  EXPECT_TRUE(taken->status().ok());
}

TEST_F(EngineCoreTest, InteractiveRequestsStartBeforeBatchOnes) {
  options_.max_running = 1;
  Start();
  const auto running = Ask(1, {});
  Step();
  const auto batch = Ask(2, {}, Priority::kBatch);
  const auto interactive = Ask(3, {}, Priority::kInteractive);
  while (!batch->finished() && !interactive->finished()) Step();
  EXPECT_TRUE(interactive->finished());
  EXPECT_FALSE(batch->finished());
}

// Features that were there, and slices that were skipped.
TEST_F(EngineCoreTest, WhatWasNotComputedIsNoMeasureOfTheCostModel) {
  Start();
  PromptShape shape;
  shape.frames = 40;
  const auto first = Ask(1, shape);
  std::optional<WorkerJob> job = core_->NextJob();
  ASSERT_TRUE(job.has_value());
  ASSERT_FALSE(job->plan.vision.empty());
  StepDone done;
  done.result.step = job->plan.step;
  done.result.reused_vision = job->plan.vision;
  if (!job->plan.prefill.empty()) {
    done.result.prefill_time = absl::Milliseconds(1);
    done.result.tokens.push_back({.sequence = SequenceId{1}});
  }
  core_->Handle(std::move(done));
  const CostModel cost = *core_->Snapshot().cost;
  EXPECT_EQ(cost.VisionSeconds(1000), CostModel(fake_.info).VisionSeconds(1000));
  EXPECT_LT(cost.relative_error(), 10);  // not by what the vision tower would have taken
  // A step with a slice that was left out counts for nothing.
  const int64_t observed = cost.num_observed();
  job = core_->NextJob();
  ASSERT_TRUE(job.has_value());
  done = {};
  done.result.step = job->plan.step;
  done.result.decode_time = absl::Seconds(100);
  done.result.skipped = {SequenceId{1}};
  core_->Handle(std::move(done));
  EXPECT_EQ(core_->Snapshot().cost->num_observed(), observed);
}

TEST_F(EngineCoreTest, PhaseTimesAddUpToTheTotal) {
  fake_.clock = &clock_;
  Start();
  PromptShape shape;
  shape.frames = 20;
  shape.text_after = 900;
  shape.ignore_eos = true;
  const auto stream = Ask(1, shape);
  clock_.Advance(absl::Milliseconds(3));
  while (!stream->finished()) Step();
  const Timing timing = stream->result().timing;
  EXPECT_EQ(timing.queue, absl::Milliseconds(3));
  EXPECT_GT(timing.vision, absl::ZeroDuration());
  EXPECT_GT(timing.prefill, absl::ZeroDuration());
  EXPECT_EQ(timing.queue + timing.vision + timing.prefill + timing.generate, timing.total);
  EXPECT_EQ(timing.time_to_first_token, timing.total - timing.generate);
  EXPECT_EQ(timing.mean_inter_token * 7, timing.generate);
}

}  // namespace
}  // namespace videonsa
