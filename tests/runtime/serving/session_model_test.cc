// Sessions over the real CPU executor: every turn's tokens equal those of a fresh request with the
// same content, although its pages were filled by prefill, by decode and by appends before.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/runtime/serving/model_runtime.h"
#include "tests/runtime/serving/serving_fixtures.h"
#include "tests/support/recording_sink.h"

namespace videonsa {
namespace {

VideoPart Clip(const std::string& name, int num_frames) {
  VideoPart video;
  video.source = FakeSource(name);
  video.sampling.num_frames = num_frames;
  return video;
}

Turn UserTurn(std::vector<Part> parts) { return Turn{Role::kUser, std::move(parts), {}}; }

class SessionModelTest : public ::testing::TestWithParam<const char*> {
 protected:
  SessionModelTest() {
    WriteFolder(GetParam(), folder_);
    for (const int depth : {1, 2}) {
      runtimes_.push_back(FakeMediaRuntime(folder_, depth, int64_t{32} << 20, &media_));
    }
  }

  GenerateResult Run(RuntimeImpl& runtime, GenerateRequest request) {
    auto sink = std::make_shared<RecordingSink>();
    const absl::StatusOr<RequestId> id = runtime.Submit(std::move(request), sink);
    EXPECT_TRUE(id.ok()) << id.status();
    if (!id.ok()) return {};
    sink->Await();
    EXPECT_TRUE(sink->status().ok()) << sink->status();
    return sink->result();
  }

  // A request of its own tenant shares nothing.
  std::vector<int32_t> Fresh(RuntimeImpl& runtime, const GenerateRequest& request) {
    GenerateRequest fresh = request;
    fresh.tenant = absl::StrCat("fresh ", ++fresh_);
    fresh.pin = nullptr;
    fresh.expects_reuse = false;
    const GenerateResult result = Run(runtime, fresh);
    EXPECT_NE(result.kv_reuse, KvReuse::kExact);
    return result.answer_ids;
  }

  GenerateRequest Request(const std::vector<Turn>& turns, std::shared_ptr<SessionPin> pin) {
    GenerateRequest request;
    request.tenant = "t";
    request.turns = turns;
    request.generation.max_output_tokens = 90;
    request.generation.ignore_eos = true;
    request.generation.temperature = 0;
    request.pin = std::move(pin);
    request.expects_reuse = true;
    return request;
  }

  bool reuses() const { return std::string(GetParam()) != "released_nsa"; }

  test::TemporaryFolder folder_;
  std::vector<std::unique_ptr<RuntimeImpl>> runtimes_;
  FakeMediaLoader* media_ = nullptr;  // of the last runtime
  int fresh_ = 0;
};

TEST_P(SessionModelTest, EveryTurnAnswersAsAFreshRequest) {
  for (const auto& runtime : runtimes_) {
    auto pin = std::make_shared<SessionPin>(SessionId{7});
    std::vector<Turn> turns = {UserTurn({Clip("one", 50)})};
    GenerateRequest open = Request(turns, pin);
    open.open_turn = open.must_pin = true;
    open.generation.max_output_tokens = 1;
    const GenerateResult created = Run(*runtime, open);
    EXPECT_EQ(pin->pages.load(), created.pinnable_pages);
    EXPECT_EQ(created.pinnable_pages > 0, reuses());
    int64_t rows = 0;  // that a session has filled
    for (int turn = 0; turn < 4; ++turn) {
      if (turn > 0) turns.push_back(UserTurn({}));
      // Appends go between turns, as parts of what will be the next question's turn.
      if (turn == 2) {
        turns.back().parts.emplace_back(Clip("two", 80));
        GenerateRequest append = Request(turns, pin);
        append.open_turn = append.must_pin = true;
        append.generation.max_output_tokens = 1;
        const GenerateResult appended = Run(*runtime, append);
        if (reuses()) {
          EXPECT_EQ(appended.kv_reuse, KvReuse::kExact);
          EXPECT_EQ(appended.usage.cached_prompt_tokens, rows / 64 * 64);
          rows = appended.usage.prompt.text + appended.usage.prompt.vision;
        }
      }
      turns.back().parts.emplace_back(TextPart{absl::StrCat("question ", turn, " about it?")});
      const GenerateRequest request = Request(turns, pin);
      const GenerateResult got = Run(*runtime, request);
      EXPECT_EQ(got.answer_ids.size(), 90u);
      EXPECT_EQ(got.answer_ids, Fresh(*runtime, request)) << GetParam() << " turn " << turn;
      EXPECT_EQ(got.kv_reuse, reuses() ? KvReuse::kExact : KvReuse::kFeatures);
      if (reuses() && turn > 0) {
        EXPECT_EQ(got.usage.cached_prompt_tokens, rows / 64 * 64) << turn;
      }
      rows = got.usage.prompt.text + got.usage.prompt.vision + 89;
      Turn answer;
      answer.role = Role::kAssistant;
      answer.parts.emplace_back(TextPart{got.answer_text});
      answer.token_ids = got.answer_ids;
      turns.push_back(std::move(answer));
    }
    pin->closed = true;
    runtime->Unpin(*pin);
    while (runtime->Stats().kv_pages_pinned > 0) absl::SleepFor(absl::Milliseconds(1));
    EXPECT_EQ(pin->pages.load(), 0);
    EXPECT_EQ(runtime->Drain(absl::Seconds(30)), 0);
  }
}

TEST_P(SessionModelTest, SeveralQuestionsAboutOneClipAnswerAsEachAlone) {
  RuntimeImpl& runtime = *runtimes_.back();
  auto pin = std::make_shared<SessionPin>(SessionId{8});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 6; ++i) {
    GenerateRequest request = Request(
        {UserTurn({Clip("one", 70), TextPart{absl::StrCat("what of number ", i, "?")}})}, nullptr);
    request.expects_reuse = i > 0;
    if (i == 0) request.pin = pin;
    requests.push_back(request);
  }
  const GenerateResult lead = Run(runtime, requests[0]);
  EXPECT_EQ(lead.answer_ids, Fresh(runtime, requests[0]));
  const int loads = media_->num_loads();
  for (size_t i = 1; i < requests.size(); ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    ASSERT_TRUE(runtime.Submit(requests[i], sinks.back()).ok());
  }
  for (size_t i = 1; i < requests.size(); ++i) {
    sinks[i - 1]->Await();
    ASSERT_TRUE(sinks[i - 1]->status().ok()) << sinks[i - 1]->status();
    EXPECT_EQ(sinks[i - 1]->result().kv_reuse, reuses() ? KvReuse::kExact : KvReuse::kFeatures);
  }
  EXPECT_EQ(media_->num_loads(), loads) << "the clip was decoded again";
  for (size_t i = 1; i < requests.size(); ++i) {
    EXPECT_EQ(sinks[i - 1]->result().answer_ids, Fresh(runtime, requests[i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Semantics, SessionModelTest,
                         ::testing::Values("dense", "causal_nsa", "released_nsa"));

}  // namespace
}  // namespace videonsa
