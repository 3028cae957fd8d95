// Who leaves for whom, and that nobody can tell from the answers.
#include "runtime/engine/preemption.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "runtime/step/patch_stream.h"
#include "tests/runtime/engine/core_fixture.h"

namespace videonsa {
namespace {

using Ids = std::vector<SequenceId>;

// Victims with two pages each, of their own unless told otherwise.
class ChooseVictimsTest : public ::testing::Test {
 protected:
  void Add(uint64_t id, Priority priority, double lost, std::vector<int32_t> pages = {}) {
    if (pages.empty()) pages = {next_page_++, next_page_++};
    pages_.push_back(std::make_unique<std::vector<int32_t>>(pages));
    for (const int32_t page : pages) ++holders_[page];
    views_.push_back({SequenceId{id}, priority, lost, 100, *pages_.back()});
  }
  Ids Choose(const Shortage& shortage, Priority priority = Priority::kInteractive) {
    Ids ids = ChooseVictims(views_, shortage, priority, 100,
                            [this](int32_t page) { return holders_[page]; });
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  std::vector<VictimView> views_;
  std::vector<std::unique_ptr<std::vector<int32_t>>> pages_;
  int holders_[100] = {};
  int32_t next_page_ = 0;
};

TEST_F(ChooseVictimsTest, TakesTheLowestClassAndTheLeastWorkLost) {
  Add(1, Priority::kStandard, 0.1);
  Add(2, Priority::kBatch, 5);
  Add(3, Priority::kBatch, 2);
  Add(4, Priority::kInteractive, 0);
  EXPECT_EQ(Choose({.pages = 2}), Ids{SequenceId{3}});
  EXPECT_EQ(Choose({.pages = 3}), (Ids{SequenceId{2}, SequenceId{3}}));
  EXPECT_EQ(Choose({.pages = 6}), (Ids{SequenceId{1}, SequenceId{2}, SequenceId{3}}));
  EXPECT_EQ(Choose({.pages = 7}), Ids{});  // nobody of its own class
  EXPECT_EQ(Choose({.pages = 5}, Priority::kStandard), Ids{});
  EXPECT_EQ(Choose({.pages = 1}, Priority::kBatch), Ids{});
  EXPECT_EQ(Choose({.slots = 2}), (Ids{SequenceId{2}, SequenceId{3}}));
  EXPECT_EQ(Choose({.hidden_bytes = 150}), (Ids{SequenceId{2}, SequenceId{3}}));
}

TEST_F(ChooseVictimsTest, SparesWhoIsNotNeeded) {
  Add(1, Priority::kBatch, 1);
  Add(2, Priority::kBatch, 2, {10, 11, 12, 13, 14, 15});
  EXPECT_EQ(Choose({.pages = 6}), Ids{SequenceId{2}});  // the first one alone would not do
}

TEST_F(ChooseVictimsTest, SharedPagesComeBackWithTheirLastHolder) {
  Add(1, Priority::kBatch, 1, {20, 21, 22});
  Add(2, Priority::kBatch, 2, {20, 21, 23});
  EXPECT_EQ(Choose({.pages = 2}), (Ids{SequenceId{1}, SequenceId{2}}));
  EXPECT_EQ(Choose({.pages = 4}), (Ids{SequenceId{1}, SequenceId{2}}));
  holders_[20] = holders_[21] = 3;  // a session holds them too
  EXPECT_EQ(Choose({.pages = 3}), Ids{});
}

class PreemptionTest : public EngineCoreTest {
 protected:
  PreemptionTest() { fake_.info.num_pages = 16; }

  // Holds 9 of 16 pages for a long time.
  static PromptShape Long(uint64_t seed = 1) {
    PromptShape shape;
    shape.seed = seed;
    shape.text_after = 64;
    shape.max_output_tokens = 500;
    shape.ignore_eos = true;
    return shape;
  }
  // Needs 10.
  static PromptShape Big(uint64_t seed = 100) {
    PromptShape shape;
    shape.seed = seed;
    shape.text_after = 600;
    return shape;
  }
  std::vector<int32_t> Alone(const PromptShape& shape) const {
    return FakeExecutor::AnswerAlone(MakePrompt(shape)->spec, fake_.info);
  }
  void StepUntil(const RecordingStream& stream) {
    for (int step = 0; step < 3000 && !stream.finished(); ++step) {
      clock_.Advance(absl::Milliseconds(1));
      Step();
    }
    ASSERT_TRUE(stream.finished());
  }
  std::shared_ptr<SessionPin> pin_ = std::make_shared<SessionPin>(SessionId{9});
  int64_t preemptions() const { return core_->Snapshot().preemptions; }
};

TEST_F(PreemptionTest, AHigherClassGetsThePagesAndTheAnswerGoesOnAsIfNothingWas) {
  for (const AttentionSemantics semantics :
       {AttentionSemantics::kDense, AttentionSemantics::kCausalNsa,
        AttentionSemantics::kReleasedNsa}) {
    for (const int depth : {1, 2}) {
      options_.plan_depth = depth;
      Start();
      PromptShape shape = Long();
      shape.semantics = semantics;
      shape.frames = 5;
      const auto batch = Ask(1, shape, Priority::kBatch);
      while (batch->tokens().size() < 100) Step();
      const auto interactive = Ask(2, Big(), Priority::kInteractive);
      StepUntil(*interactive);
      EXPECT_FALSE(batch->finished());
      const size_t kept = batch->tokens().size();
      EXPECT_LE(kept, 102u);
      StepUntil(*batch);
      EXPECT_EQ(batch->tokens(), Alone(shape)) << SemanticsName(semantics);
      EXPECT_EQ(interactive->tokens(), Alone(Big()));
      const GenerateResult result = batch->result();
      EXPECT_EQ(result.timing.preemptions, 1);
      EXPECT_GT(result.timing.preempted, absl::ZeroDuration());
      EXPECT_LT(result.timing.preempted, result.timing.generate);
      EXPECT_EQ(result.usage.output_tokens, 500);
      EXPECT_EQ(result.usage.cached_prompt_tokens, 0);
      EXPECT_EQ(result.answer_ids, batch->tokens());
      // The rows of the first stay were computed twice, unless the prompt's pages were still known.
      EXPECT_GE(result.account.dense_pairs, 94 + 499 + static_cast<int64_t>(kept) - 1);
      EXPECT_EQ(preemptions(), 1);
      EXPECT_EQ(core_->num_open(), 0);
    }
  }
}

TEST_F(PreemptionTest, NobodyLeavesForItsOwnClassOrForWhatWouldNotFitAllTheSame) {
  Start();
  const auto standard = Ask(1, Long(), Priority::kStandard);
  while (standard->tokens().empty()) Step();
  const auto equal = Ask(2, Big(), Priority::kStandard);
  for (int step = 0; step < 20; ++step) Step();
  EXPECT_EQ(preemptions(), 0);
  core_->Handle(CancelMessage{RequestId{2}});
  const auto other = Ask(3, Long(2), Priority::kInteractive);  // needs 9, has 7
  const auto third = Ask(4, Long(3), Priority::kInteractive);
  StepUntil(*other);
  EXPECT_EQ(preemptions(), 1);  // the third waits for the second: both are interactive
  StepUntil(*third);
  StepUntil(*standard);
  EXPECT_EQ(standard->tokens(), Alone(Long()));
}

TEST_F(PreemptionTest, NeverTwiceWithoutANewTokenAndNotForEver) {
  options_.max_preemptions = 3;
  Start();
  const auto batch = Ask(1, Long(), Priority::kBatch);
  while (batch->tokens().size() < 10) Step();
  std::vector<std::shared_ptr<RecordingStream>> others;
  for (uint64_t id = 2; id < 60; ++id) {
    others.push_back(Ask(id, Big(id), Priority::kInteractive));
    StepUntil(*others.back());
    // Until it has its pages again, so that the next one finds it in its replay.
    while (!batch->finished() && core_->Snapshot().running == 0) Step();
  }
  StepUntil(*batch);
  EXPECT_EQ(batch->tokens(), Alone(Long()));
  EXPECT_EQ(batch->result().timing.preemptions, 3);
  EXPECT_EQ(preemptions(), 3);
}

TEST_F(PreemptionTest, ASequenceIsSafeUntilItHasANewToken) {
  options_.step.prefill_tokens = 64;
  Start();
  PromptShape shape = Big(1);
  shape.max_output_tokens = 50;
  const auto batch = Ask(1, shape, Priority::kBatch);
  Step();
  Step();  // in the middle of its prompt
  const auto first = Ask(2, Big(2), Priority::kInteractive);
  StepUntil(*first);
  EXPECT_EQ(preemptions(), 1);
  Step();
  Step();  // in the middle again: no token yet
  const auto second = Ask(3, Big(3), Priority::kInteractive);
  while (batch->tokens().empty()) {
    EXPECT_EQ(preemptions(), 1);
    Step();
  }
  StepUntil(*second);  // now it may be asked to leave again
  EXPECT_EQ(preemptions(), 2);
  StepUntil(*batch);
  EXPECT_EQ(batch->tokens(), Alone(shape));
}

TEST_F(PreemptionTest, RunningSlotsAreTakenToo) {
  options_.max_running = 2;
  Start();
  PromptShape shape = Long();
  shape.max_output_tokens = 60;
  const auto one = Ask(1, shape, Priority::kBatch);
  shape.seed = 2;
  const auto two = Ask(2, shape, Priority::kStandard);
  while (two->tokens().size() < 5) Step();
  const auto interactive = Ask(3, {}, Priority::kInteractive);
  StepUntil(*interactive);
  EXPECT_FALSE(one->finished());
  EXPECT_FALSE(two->finished());
  StepUntil(*one);
  StepUntil(*two);
  EXPECT_EQ(one->result().timing.preemptions, 1);
  EXPECT_EQ(two->result().timing.preemptions, 0);
  EXPECT_EQ(two->tokens(), Alone(shape));
}

TEST_F(PreemptionTest, LayerWisePrefillsGiveTheirRowsBackAndStartAgain) {
  fake_.info.num_pages = 64;
  options_.hidden_bytes = 700 * fake_.info.hidden_row_bytes;
  options_.step.seconds = 1e-6;
  Start();
  PromptShape shape = Big(1);
  shape.semantics = AttentionSemantics::kReleasedNsa;
  const auto batch = Ask(1, shape, Priority::kBatch);
  EXPECT_EQ(Step().prefill.front().layer_end, 1);
  PromptShape other = shape;
  other.seed = 2;
  const auto interactive = Ask(2, other, Priority::kInteractive);
  StepUntil(*interactive);
  EXPECT_TRUE(batch->tokens().empty());
  StepUntil(*batch);
  EXPECT_EQ(batch->result().timing.preemptions, 1);
  EXPECT_EQ(batch->tokens(), Alone(shape));
  EXPECT_EQ(core_->admission().hidden().used(), 0);
}

TEST_F(PreemptionTest, AClipThatCannotBeHadAgainKeepsItsPlace) {
  Start();
  PromptShape shape = Long();
  shape.frames = 4;
  auto source = std::make_shared<PatchStream>(PatchGrid{4, 4, 4}, 1 << 20, PatchStream::Hooks{});
  shape.source = source;
  const auto batch = Ask(1, shape, Priority::kBatch);
  auto piece = std::make_shared<PatchBatch>();
  piece->grid = {4, 4, 4};
  piece->rows.resize(static_cast<size_t>(piece->grid.num_patches()) * kPatchDim);
  Step();
  ASSERT_TRUE(source->Push(source->grid(), 0, piece).ok());
  source->Finish(absl::OkStatus());
  core_->Handle(MediaMessage{RequestId{1}});
  while (batch->tokens().empty()) Step();
  const auto interactive = Ask(2, Big(), Priority::kInteractive);
  StepUntil(*batch);
  EXPECT_FALSE(interactive->finished());
  EXPECT_EQ(preemptions(), 0);
  StepUntil(*interactive);
}

TEST_F(PreemptionTest, EndsInEveryStateOfLeavingGiveEverythingBack) {
  // What ends, and after how many steps: at once, its slices are under way, it has left, it waits.
  for (const uint64_t who : {1, 2}) {
    for (const bool stop : {false, true}) {
      for (int steps = 0; steps < 6; ++steps) {
        Start();
        const auto batch = Ask(1, Long(), Priority::kBatch);
        while (batch->tokens().size() < 5) Step();
        std::optional<WorkerJob> under_way = core_->NextJob();  // a decode step
        ASSERT_TRUE(under_way.has_value());
        const auto interactive = Ask(2, Big(), Priority::kInteractive);
        EXPECT_FALSE(core_->NextJob().has_value());
        core_->CheckInvariants();
        const auto end = [&] {
          if (stop) {
            core_->Handle(StopMessage{RequestId{who}});
          } else {
            core_->Handle(CancelMessage{RequestId{who}});
          }
        };
        if (steps == 0) end();
        core_->CheckInvariants();
        runner_->Run(*std::move(under_way), [this](WorkerEvent event) {
          std::visit([this](auto&& e) { core_->Handle(EngineMessage(std::move(e))); },
                     std::move(event));
        });
        if (steps == 1) end();
        core_->CheckInvariants();
        if (steps > 1) {
          for (int step = 2; step < steps; ++step) Step();
          std::optional<WorkerJob> job = core_->NextJob();
          end();
          core_->CheckInvariants();
          if (job) {
            runner_->Run(*std::move(job), [this](WorkerEvent event) {
              std::visit([this](auto&& e) { core_->Handle(EngineMessage(std::move(e))); },
                         std::move(event));
            });
          }
        }
        for (int step = 0; step < 1200 && core_->num_open() > 0; ++step) Step();
        EXPECT_EQ(core_->num_open(), 0) << who << " after " << steps;
        EXPECT_EQ(executor_->num_sequences(), 0);
        const auto& stays = who == 1 ? interactive : batch;
        EXPECT_EQ(stays->tokens(), Alone(who == 1 ? Big() : Long()));
        EXPECT_EQ(core_->admission().pool().num_used(), core_->admission().index().size());
      }
    }
  }
}

TEST_F(PreemptionTest, ADeadlineWhileItWaitsAgainEndsTheAnswerWithWhatThereIs) {
  Start();
  const auto batch = Ask(1, Long(), Priority::kBatch, clock_.Monotonic() + absl::Seconds(5));
  while (batch->tokens().size() < 20) Step();
  PromptShape long_one = Big();
  long_one.max_output_tokens = 200;
  long_one.ignore_eos = true;
  const auto interactive = Ask(2, long_one, Priority::kInteractive);
  while (interactive->tokens().empty()) Step();
  EXPECT_EQ(core_->Snapshot().waiting, 1);
  clock_.Advance(absl::Seconds(6));
  core_->Handle(TickMessage{});
  ASSERT_TRUE(batch->finished());
  EXPECT_TRUE(batch->status().ok());
  EXPECT_EQ(batch->result().finish_reason, FinishReason::kDeadline);
  EXPECT_EQ(batch->result().answer_ids.size(), batch->tokens().size());
  EXPECT_GT(batch->result().account.dense_pairs, 0);
  EXPECT_GE(batch->result().timing.preempted, absl::Seconds(6));
  StepUntil(*interactive);
}

TEST_F(PreemptionTest, SessionsKeepTheirPagesAndTheLastTurnIsTheSame) {
  Start();
  auto pin = std::make_shared<SessionPin>(SessionId{1});
  auto stream = std::make_shared<RecordingStream>();
  PromptShape shape = Long();
  shape.text_after = 200;
  shape.max_output_tokens = 300;
  Request request;
  request.id = RequestId{1};
  request.tenant = "t";
  request.priority = Priority::kBatch;
  request.stream = stream;
  request.pin = pin;
  request.cancelled = std::make_shared<std::atomic<bool>>(false);
  core_->Handle(SubmitMessage{std::move(request), 0});
  core_->Handle(ReadyMessage{RequestId{1}, MakePrompt(shape)});
  while (stream->tokens().size() < 30) Step();
  const int held = pin->pages;
  EXPECT_EQ(held, 3);
  const auto interactive = Ask(2, Big(), Priority::kInteractive);
  StepUntil(*interactive);
  EXPECT_EQ(preemptions(), 1);
  EXPECT_EQ(pin->pages, held);  // what a session holds is nobody's to take
  StepUntil(*stream);
  EXPECT_EQ(stream->tokens(), Alone(shape));
  EXPECT_EQ(stream->result().usage.cached_prompt_tokens, 0);
  EXPECT_GE(pin->pages, held);
  core_->Handle(UnpinMessage{SessionId{1}});
}

TEST_F(PreemptionTest, RowsThatWereNotReplayedAreNotKeptForLaterTurns) {
  options_.step.prefill_tokens = 64;
  Start();
  PromptShape shape = Long();
  shape.text_after = 100;
  shape.max_output_tokens = 400;
  const auto turn = [&](uint64_t id, std::unique_ptr<PreparedPrompt> prompt, Priority priority) {
    auto stream = std::make_shared<RecordingStream>();
    Request request;
    request.id = RequestId{id};
    request.tenant = "t";
    request.priority = priority;
    request.stream = stream;
    request.pin = pin_;
    request.cancelled = std::make_shared<std::atomic<bool>>(false);
    core_->Handle(SubmitMessage{std::move(request), 0});
    core_->Handle(ReadyMessage{RequestId{id}, std::move(prompt)});
    return stream;
  };
  const auto first = turn(1, MakePrompt(shape), Priority::kBatch);
  while (first->tokens().size() < 150) Step();
  const auto interactive = Ask(2, Big(), Priority::kInteractive);
  StepUntil(*interactive);
  while (core_->Snapshot().running == 0) Step();
  core_->Handle(StopMessage{RequestId{1}});  // before its answer has run again
  StepUntil(*first);
  const std::vector<int32_t> said = first->tokens();
  EXPECT_GE(said.size(), 150u);
  const auto again = turn(3, ContinuePrompt(shape, said), Priority::kStandard);
  StepUntil(*again);
  EXPECT_EQ(again->tokens(),
            FakeExecutor::AnswerAlone(ContinuePrompt(shape, said)->spec, fake_.info));
}

}  // namespace
}  // namespace videonsa
