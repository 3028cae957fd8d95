// Sessions at the engine's core: pages of prompt and answer are found by the next turn, stay while
// they are pinned, and never change an answer.
#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/engine/engine_core.h"
#include "runtime/engine/prefix_keys.h"
#include "tests/support/engine_fixtures.h"
#include "tests/support/fake_executor.h"

namespace videonsa {
namespace {

class SessionsTest : public ::testing::Test {
 protected:
  SessionsTest() {
    fake_.info = SmallExecutorInfo();
    options_.pinned_share = 1;
    options_.tenant_pinned_share = 1;
  }

  void Start() {
    for (int i = 0; i < options_.num_workers; ++i) {
      executors_.push_back(std::make_unique<FakeExecutor>(fake_));
      runners_.push_back(std::make_unique<JobRunner>(executors_.back().get(), i));
    }
    core_ = std::make_unique<EngineCore>(options_, fake_.info, clock_, nullptr);
  }

  std::shared_ptr<RecordingStream> Ask(std::unique_ptr<PreparedPrompt> prompt,
                                       std::shared_ptr<SessionPin> pin, bool must_pin = false,
                                       const std::string& tenant = "t") {
    auto stream = std::make_shared<RecordingStream>();
    Request request;
    request.id = RequestId{next_id_++};
    request.tenant = tenant;
    request.receive = clock_.Monotonic();
    request.stream = stream;
    request.pin = std::move(pin);
    request.must_pin = must_pin;
    request.cancelled = std::make_shared<std::atomic<bool>>(false);
    const RequestId id = request.id;
    core_->Handle(SubmitMessage{std::move(request), 0});
    core_->Handle(ReadyMessage{id, std::move(prompt)});
    return stream;
  }

  bool Step() {
    std::optional<WorkerJob> job = core_->NextJob();
    if (!job) return false;
    const int worker = job->worker;
    runners_[worker]->Run(*std::move(job), [this](WorkerEvent event) {
      std::visit([this](auto&& e) { core_->Handle(EngineMessage(std::move(e))); },
                 std::move(event));
    });
    core_->CheckInvariants();
    return true;
  }

  void RunAll() {
    while (Step()) {
    }
  }

  // Asks and lets it end; the answer must be the one that the prompt gives alone.
  GenerateResult Answer(std::unique_ptr<PreparedPrompt> prompt, std::shared_ptr<SessionPin> pin,
                        const std::string& tenant = "t") {
    const std::vector<int32_t> alone = FakeExecutor::AnswerAlone(prompt->spec, fake_.info);
    const auto stream = Ask(std::move(prompt), std::move(pin), false, tenant);
    RunAll();
    EXPECT_TRUE(stream->finished());
    EXPECT_TRUE(stream->status().ok()) << stream->status();
    EXPECT_EQ(stream->tokens(), alone);
    return stream->result();
  }

  static std::shared_ptr<SessionPin> Pin(uint64_t id) {
    return std::make_shared<SessionPin>(SessionId{id});
  }
  const SessionPins& pins(int worker = 0) const { return core_->admission(worker).pins(); }

  FakeClock clock_;
  EngineOptions options_;
  FakeExecutorOptions fake_;
  std::vector<std::unique_ptr<FakeExecutor>> executors_;
  std::vector<std::unique_ptr<JobRunner>> runners_;
  std::unique_ptr<EngineCore> core_;
  uint64_t next_id_ = 1;
};

PromptShape Clip(AttentionSemantics semantics = AttentionSemantics::kCausalNsa) {
  PromptShape shape;
  shape.text_before = 20;
  shape.frames = 40;  // 160 tokens
  shape.text_after = 30;
  shape.max_output_tokens = 150;
  shape.ignore_eos = true;
  shape.semantics = semantics;
  return shape;
}

TEST(PrefixKeys, OfAnAnswerAreThoseOfAPromptThatGoesOnWithIt) {
  for (const int text_after : {1, 12, 13, 75, 76, 77}) {  // page border at 12 and 76
    PromptShape shape = Clip();
    shape.text_after = text_after;
    const auto prompt = MakePrompt(shape);
    std::vector<int32_t> rows;
    for (int i = 0; i < 200; ++i) {
      rows.push_back(i * 7 % 900);
      std::vector<Sha256Digest> keys = prompt->page_keys;
      const auto more = MorePrefixKeys(prompt->spec, prompt->page_salt, keys, rows);
      keys.insert(keys.end(), more.begin(), more.end());
      ASSERT_EQ(keys, ContinuePrompt(shape, rows)->page_keys) << text_after << " " << i;
    }
  }
  const auto whole = MakePrompt(Clip(AttentionSemantics::kReleasedNsa));
  EXPECT_TRUE(MorePrefixKeys(whole->spec, whole->page_salt, {}, {1, 2, 3}).empty());
  auto unknown = MakePrompt(Clip());
  unknown->spec.visual_keys[0] = {};
  const auto keys = PrefixKeys(unknown->spec, "t");
  const std::vector<int32_t> rows(200, 1);
  EXPECT_TRUE(MorePrefixKeys(unknown->spec, "t", keys, rows).empty());
}

TEST_F(SessionsTest, ALaterTurnFindsThePagesThatTheAnswerFilled) {
  for (const auto semantics : {AttentionSemantics::kDense, AttentionSemantics::kCausalNsa}) {
    executors_.clear();
    runners_.clear();
    Start();
    PromptShape shape = Clip(semantics);
    const auto pin = Pin(1);
    std::vector<int32_t> history;
    int64_t cached = 0;
    for (int turn = 0; turn < 4; ++turn) {
      const GenerateResult result = Answer(ContinuePrompt(shape, history), pin);
      ASSERT_EQ(result.answer_ids.size(), 150u);
      // Everything but the last token's row was there, in whole pages.
      EXPECT_EQ(result.usage.cached_prompt_tokens, cached);
      EXPECT_EQ(result.kv_reuse, turn == 0 ? KvReuse::kNone : KvReuse::kExact);
      cached = (210 + static_cast<int64_t>(history.size()) + 149) / kPageTokens * kPageTokens;
      EXPECT_EQ(pin->pages.load(), cached / kPageTokens);
      history.insert(history.end(), result.answer_ids.begin(), result.answer_ids.end());
      history.insert(history.end(), {5, 6, 7, 8});  // the next question
    }
    core_->Handle(UnpinMessage{pin->id});
    EXPECT_EQ(pins().num_pages(), 0);
    EXPECT_EQ(pin->pages.load(), 0);
    core_->CheckInvariants();
  }
}

TEST_F(SessionsTest, WithoutASessionOnlyThePromptsPagesAreFound) {
  Start();
  const PromptShape shape = Clip();
  const GenerateResult first = Answer(MakePrompt(shape), nullptr);
  std::vector<int32_t> history = first.answer_ids;
  history.push_back(5);
  const GenerateResult second = Answer(ContinuePrompt(shape, history), nullptr);
  EXPECT_EQ(second.usage.cached_prompt_tokens, 192);
}

TEST_F(SessionsTest, TheEndTokenIsNoPartOfTheAnswer) {
  Start();
  PromptShape shape = Clip();
  shape.ignore_eos = false;
  shape.max_output_tokens = 500;
  int stopped = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    shape.seed = seed;
    const auto pin = Pin(seed);
    const GenerateResult result = Answer(MakePrompt(shape), pin);
    if (result.finish_reason != FinishReason::kStop) continue;
    ++stopped;
    EXPECT_EQ(static_cast<int64_t>(result.answer_ids.size()), result.usage.output_tokens - 1);
    std::vector<int32_t> history = result.answer_ids;
    history.insert(history.end(), {7, 8});
    const int64_t held = 64 * pin->pages.load();
    const GenerateResult next = Answer(ContinuePrompt(shape, history), pin);
    EXPECT_EQ(next.usage.cached_prompt_tokens, held);
  }
  EXPECT_GT(stopped, 2);
}

TEST_F(SessionsTest, PinnedPagesOutliveMemoryPressure) {
  fake_.info.num_pages = 20;
  options_.pinned_share = 0.5;
  options_.tenant_pinned_share = 0.5;
  Start();
  PromptShape shape = Clip();
  shape.max_output_tokens = 1;
  const auto pin = Pin(1);
  Answer(MakePrompt(shape), pin);
  EXPECT_EQ(pin->pages.load(), 3);
  PromptShape other;
  other.text_after = 600;
  for (uint64_t seed = 10; seed < 20; ++seed) {
    other.seed = seed;
    Answer(MakePrompt(other), nullptr);
  }
  EXPECT_EQ(pin->pages.load(), 3);
  EXPECT_EQ(Answer(MakePrompt(shape), pin).usage.cached_prompt_tokens, 192);
}

TEST_F(SessionsTest, SessionsYieldToWhoCouldNotRunBesideThemEvenAlone) {
  fake_.info.num_pages = 20;
  Start();
  PromptShape shape = Clip();
  shape.max_output_tokens = 1;
  std::vector<std::shared_ptr<SessionPin>> held;
  for (uint64_t i = 1; i <= 4; ++i) {
    shape.seed = i;
    held.push_back(Pin(i));
    Answer(MakePrompt(shape), held.back());
  }
  EXPECT_EQ(pins().num_pages(), 12);
  PromptShape big;  // 13 pages of 20: two sessions must go, the longest unused
  big.text_after = 800;
  Answer(MakePrompt(big), nullptr);
  EXPECT_EQ(held[0]->pages.load(), 0);
  EXPECT_EQ(held[1]->pages.load(), 0);
  EXPECT_EQ(held[2]->pages.load(), 3);
  EXPECT_EQ(held[3]->pages.load(), 3);
  EXPECT_EQ(pins().num_taken(), 2);
  shape.seed = 1;  // a session that lost its pages answers all the same
  Answer(MakePrompt(shape), held[0]);
  EXPECT_EQ(held[0]->pages.load(), 3);
}

TEST_F(SessionsTest, ARequestThatMustPinIsRefusedAtTheCeilingBeforeItRuns) {
  options_.tenant_pinned_share = 5.0 / 64;
  Start();
  PromptShape shape = Clip();
  shape.max_output_tokens = 1;
  Answer(MakePrompt(shape), Pin(1));  // 3 of 5
  shape.seed = 2;
  const int runs = executors_[0]->num_runs();
  const auto refused = Ask(MakePrompt(shape), Pin(2), true);
  ASSERT_TRUE(refused->finished());
  EXPECT_EQ(refused->status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorInfo(refused->status())->reason, "SESSION_PAGES");
  EXPECT_TRUE(GetErrorInfo(refused->status())->retry_after.has_value());
  RunAll();
  EXPECT_EQ(executors_[0]->num_runs(), runs);
  // The same clip again needs no more pages; another tenant has its own ceiling.
  shape.seed = 1;
  const auto same = Ask(MakePrompt(shape), Pin(3), true);
  shape.tenant = "u";
  const auto other = Ask(MakePrompt(shape), Pin(4), true, "u");
  RunAll();
  EXPECT_TRUE(same->status().ok()) << same->status();
  EXPECT_TRUE(other->status().ok()) << other->status();
  EXPECT_EQ(pins().num_pages(), 6);
}

TEST_F(SessionsTest, AClosedSessionHoldsNothing) {
  Start();
  const auto pin = Pin(1);
  const auto stream = Ask(MakePrompt(Clip()), pin);
  for (int i = 0; i < 5; ++i) Step();
  pin->closed = true;  // deleted while it answers
  core_->Handle(UnpinMessage{pin->id});
  RunAll();
  EXPECT_TRUE(stream->status().ok());
  EXPECT_EQ(pin->pages.load(), 0);
  EXPECT_EQ(pins().num_sessions(), 0);
}

TEST_F(SessionsTest, AFailedAnswerLeavesThePagesOfItsPrompt) {
  Start();
  const auto pin = Pin(1);
  const auto stream = Ask(MakePrompt(Clip()), pin);
  while (stream->tokens().size() < 100) ASSERT_TRUE(Step());
  core_->Handle(CancelMessage{RequestId{1}});
  RunAll();
  EXPECT_EQ(stream->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(pin->pages.load(), 3);
}

TEST_F(SessionsTest, PagesOfASessionLiveOnOneWorkerAndGoWithIt) {
  options_.num_workers = 2;
  options_.restarts = true;
  Start();
  const PromptShape shape = Clip();
  const auto pin = Pin(1);
  const GenerateResult first = Answer(MakePrompt(shape), pin);
  ASSERT_EQ(pins(0).num_pages() + pins(1).num_pages(), pin->pages.load());
  const int home = pins(0).num_pages() > 0 ? 0 : 1;
  core_->Handle(WorkerFailed{absl::UnavailableError("gone"), home});
  EXPECT_EQ(pin->pages.load(), 0);
  std::vector<int32_t> history = first.answer_ids;
  history.push_back(5);
  const GenerateResult second = Answer(ContinuePrompt(shape, history), pin);
  EXPECT_EQ(second.usage.cached_prompt_tokens, 0);
  EXPECT_GT(pins(1 - home).num_pages(), 0);
}

}  // namespace
}  // namespace videonsa
