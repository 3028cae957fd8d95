// The runtime over a fake executor and a fake loader, with a real tokenizer.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "runtime/serving/runtime_impl.h"
#include "runtime/text/chat_config.h"
#include "tests/runtime/serving/serving_fixtures.h"
#include "tests/support/fake_executor.h"
#include "tests/support/recording_sink.h"

namespace videonsa {
namespace {

class RuntimeTest : public ::testing::Test {
 protected:
  RuntimeTest() {
    fake_.info = SmallExecutorInfo();
    fake_.info.vocab_size = 950;  // no special tokens
    parts_.engine.max_waiting = 16;
    parts_.engine.max_running = 8;
    parts_.facts.name = "fake";
    parts_.prompt.generation.max_output_tokens = 20;
  }

  void Start() {
    const std::string folder = std::string(VIDEONSA_TEST_DATA) + "/text/small";
    parts_.tokenizer = *Tokenizer::Load(folder);
    parts_.prompt.chat = ReadChatConfig(folder, *parts_.tokenizer)->tokens;
    parts_.prompt.info = fake_.info;
    parts_.salts = TenantSalts("secret");  // the fake's tokens depend on keys
    parts_.executor = std::make_unique<FakeExecutor>(fake_);
    auto media = std::make_unique<FakeMediaLoader>();
    media->on_load = on_load_;
    media_ = media.get();
    parts_.media = std::move(media);
    runtime_ = std::make_unique<RuntimeImpl>(std::move(parts_), clock_);
  }

  struct Asked {
    RequestId id;
    std::shared_ptr<RecordingSink> sink;
  };
  Asked Ask(GenerateRequest request, int refuse_from = 0) {
    Asked asked;
    asked.sink = std::make_shared<RecordingSink>(refuse_from);
    const absl::StatusOr<RequestId> id = runtime_->Submit(std::move(request), asked.sink);
    VNSA_CHECK(id.ok()) << id.status();
    asked.id = *id;
    return asked;
  }

  FakeClock clock_;
  absl::Notification started_, go_;  // outlive the runtime whose threads wait for them
  FakeExecutorOptions fake_;
  std::function<void()> on_load_;
  RuntimeParts parts_;
  FakeMediaLoader* media_ = nullptr;
  std::unique_ptr<RuntimeImpl> runtime_;
};

TEST_F(RuntimeTest, ReportsWhatWasReallyDone) {
  Start();
  GenerateRequest request = Question("What is it?", "clip", 8);
  request.generation.ignore_eos = true;
  const Asked asked = Ask(std::move(request));
  asked.sink->Await();
  ASSERT_TRUE(asked.sink->status().ok()) << asked.sink->status();
  const GenerateResult result = asked.sink->result();
  EXPECT_EQ(asked.sink->token_count(), 20);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.usage.output_tokens, 20);
  EXPECT_EQ(result.usage.prompt.vision, 16);  // 4 temporal patches of 4 tokens
  EXPECT_GT(result.usage.prompt.text, 5);
  EXPECT_EQ(result.usage.frames_used, 8);
  ASSERT_EQ(result.visuals.size(), 1u);
  EXPECT_EQ(result.visuals[0].tokens, 16);
  EXPECT_GT(result.visuals[0].token_begin, 0);
  EXPECT_EQ(*result.effective_generation.max_output_tokens, 20);
  EXPECT_EQ(result.attention.semantics, AttentionSemantics::kDense);
  const std::vector<std::string> stages = asked.sink->stages();
  EXPECT_EQ(stages, (std::vector<std::string>{"decode", "vision", "prefill"}));
}

TEST_F(RuntimeTest, EqualQuestionsAnswerEquallyAndDecodeOnce) {
  Start();
  const Asked first = Ask(Question("same", "clip", 40));
  first.sink->Await();
  const Asked second = Ask(Question("same", "clip", 40));
  second.sink->Await();
  EXPECT_EQ(first.sink->text(), second.sink->text());
  EXPECT_EQ(media_->num_loads(), 1);
  EXPECT_EQ(second.sink->result().kv_reuse, KvReuse::kExact);
  GenerateRequest other = Question("same", "clip", 40);
  other.tenant = "other";
  const Asked third = Ask(std::move(other));
  third.sink->Await();
  EXPECT_EQ(third.sink->result().kv_reuse, KvReuse::kNone);
  EXPECT_EQ(third.sink->result().usage.cached_prompt_tokens, 0);
  EXPECT_EQ(media_->num_loads(), 2) << "another tenant's patches were found";
  // The fake executor's tokens hash the keys of visuals, which differ by tenant; that a tenant
  // does not change the answer is a test of the real one (runtime_model_test).
}

TEST_F(RuntimeTest, RefusesBadRequestsAtOnce) {
  Start();
  const auto reason = [&](GenerateRequest request) {
    return ReasonOf(
        runtime_->Submit(std::move(request), std::make_shared<RecordingSink>()).status());
  };
  GenerateRequest request = Question("q");
  request.tenant.clear();
  EXPECT_EQ(reason(request), "FIELD_INVALID");
  request = Question("q");
  request.turns.clear();
  EXPECT_EQ(reason(request), "FIELD_INVALID");
  request = Question("q");
  request.turns.back().role = Role::kAssistant;
  EXPECT_EQ(reason(request), "FIELD_INVALID");
  request = Question("q");
  request.generation.stop = {""};
  EXPECT_EQ(reason(request), "FIELD_INVALID");
}

TEST_F(RuntimeTest, BadContentEndsThroughTheSink) {
  Start();
  const auto reason = [&](GenerateRequest request) {
    const Asked asked = Ask(std::move(request));
    asked.sink->Await();
    return ReasonOf(asked.sink->status());
  };
  EXPECT_EQ(reason(Question("q", "bad")), "MEDIA_CORRUPT");
  EXPECT_EQ(reason(Question("\xff")), "FIELD_INVALID");
  EXPECT_EQ(reason(Question(std::string(20000, 'x'))), "CONTEXT_TOO_LONG");
  GenerateRequest request = Question("q");
  request.generation.max_output_tokens = 4090;
  EXPECT_EQ(reason(request), "CONTEXT_TOO_LONG");
  request = Question("q");
  request.attention.semantics = AttentionSemantics::kCausalNsa;
  EXPECT_EQ(reason(request), "ATTENTION_UNSUPPORTED");
  const Asked good = Ask(Question("q"));
  good.sink->Await();
  EXPECT_TRUE(good.sink->status().ok());
}

TEST_F(RuntimeTest, WhatCannotRunIsRefusedBeforeItIsDecoded) {
  Start();
  GenerateRequest dense = Question("q", "clip");
  dense.attention.max_budget_fraction = 0.5;
  for (GenerateRequest request : {Question("q", "long clip", 3000), dense}) {
    const Asked asked = Ask(std::move(request));
    asked.sink->Await();
    EXPECT_FALSE(asked.sink->status().ok());
  }
  EXPECT_EQ(media_->num_loads(), 0);
}

TEST_F(RuntimeTest, CancelReachesALoadUnderWay) {
  on_load_ = [&] {
    started_.Notify();
    go_.WaitForNotification();
  };
  Start();
  const Asked asked = Ask(Question("q", "clip"));
  started_.WaitForNotification();
  runtime_->Cancel(asked.id);
  asked.sink->Await();  // although the load still hangs
  EXPECT_EQ(asked.sink->status().code(), absl::StatusCode::kCancelled);
  go_.Notify();
}

TEST_F(RuntimeTest, TextQuestionsDoNotWaitForClips) {
  on_load_ = [&] { go_.WaitForNotification(); };
  parts_.media_threads = 1;
  Start();
  const Asked clip = Ask(Question("q", "clip"));
  const Asked text = Ask(Question("q"));
  text.sink->Await();
  EXPECT_TRUE(text.sink->status().ok());
  EXPECT_FALSE(clip.sink->finished());
  go_.Notify();
  clip.sink->Await();
  EXPECT_TRUE(clip.sink->status().ok());
}

TEST_F(RuntimeTest, AFullQueueRefuses) {
  on_load_ = [&] { go_.WaitForNotification(); };
  Start();
  std::vector<Asked> asked;
  for (int i = 0; i < 16; ++i) asked.push_back(Ask(Question("q", absl::StrCat("clip ", i))));
  const auto refused = runtime_->Submit(Question("q", "clip"), std::make_shared<RecordingSink>());
  EXPECT_EQ(ReasonOf(refused.status()), "QUEUE_FULL");
  EXPECT_EQ(runtime_->Stats().waiting, 16);
  go_.Notify();
  for (const Asked& one : asked) {
    one.sink->Await();
    EXPECT_TRUE(one.sink->status().ok());
  }
}

TEST_F(RuntimeTest, StopStringsEndTheAnswer) {
  Start();
  GenerateRequest request = Question("q");
  request.generation.ignore_eos = true;
  const Asked whole = Ask(request);
  whole.sink->Await();
  const std::string text = whole.sink->text();
  ASSERT_GT(text.size(), 10u);
  // Characters from the middle of the answer, cut at character borders.
  size_t begin = text.size() / 2;
  while ((text[begin] & 0xC0) == 0x80) ++begin;
  size_t end = begin + 3;
  while (end < text.size() && (text[end] & 0xC0) == 0x80) ++end;
  const std::string stop = text.substr(begin, end - begin);
  request.generation.stop = {stop};
  const Asked stopped = Ask(request);
  stopped.sink->Await();
  EXPECT_EQ(stopped.sink->text(), text.substr(0, text.find(stop)));
  EXPECT_EQ(stopped.sink->result().matched_stop, stop);
  EXPECT_EQ(stopped.sink->result().finish_reason, FinishReason::kStop);
  EXPECT_LT(stopped.sink->result().usage.output_tokens, 20);
}

TEST_F(RuntimeTest, AReaderThatLeavesFreesThePages) {
  Start();
  GenerateRequest request = Question("q");
  request.generation.max_output_tokens = 2000;
  request.generation.ignore_eos = true;
  const Asked asked = Ask(std::move(request), 3);
  asked.sink->Await();
  EXPECT_EQ(asked.sink->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(runtime_->Drain(absl::Seconds(10)), 0);
}

TEST_F(RuntimeTest, EstimateSaysWhatTheRunThenUses) {
  Start();
  const GenerateRequest request = Question("What?", "clip", 10);
  const absl::StatusOr<EstimateResult> estimate = runtime_->Estimate(request);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  EXPECT_TRUE(estimate->admissible);
  EXPECT_EQ(estimate->frames, 10);
  EXPECT_GT(estimate->time_to_first_token, absl::ZeroDuration());
  EXPECT_GT(estimate->total, estimate->time_to_first_token);
  EXPECT_DOUBLE_EQ(estimate->budget_fraction, 1.0);
  // Five temporal patches of 4 x 4 patches, and something for every token.
  EXPECT_GT(estimate->peak_bytes, estimate->kv_bytes + 5 * 16 * kPatchDim * 4);
  EXPECT_EQ(media_->num_loads(), 0);
  const Asked asked = Ask(request);
  asked.sink->Await();
  EXPECT_EQ(asked.sink->result().usage.prompt.text, estimate->prompt.text);
  EXPECT_EQ(asked.sink->result().usage.prompt.vision, estimate->prompt.vision);
  EXPECT_EQ(asked.sink->result().usage.kv_pages_peak, estimate->kv_pages);

  const absl::StatusOr<EstimateResult> large =
      runtime_->Estimate(Question(std::string(20000, 'x')));
  ASSERT_TRUE(large.ok());
  EXPECT_FALSE(large->admissible);
  EXPECT_EQ(ReasonOf(large->why), "CONTEXT_TOO_LONG");
  EXPECT_EQ(ReasonOf(runtime_->Estimate(Question("q", "bad")).status()), "MEDIA_CORRUPT");
}

// Two temporal patches of the fake's clips wait for the vision tower at most; longer clips stream.
constexpr int64_t kTwoPatches = 2 * 16 * kPatchDim * 4;

TEST_F(RuntimeTest, AStreamedClipAnswersAsTheWholeOne) {
  Start();
  const Asked whole = Ask(Question("q", "clip", 40));
  whole.sink->Await();
  runtime_.reset();
  parts_ = {};
  parts_.prompt.generation.max_output_tokens = 20;
  parts_.patch_buffer_bytes = kTwoPatches;
  Start();
  const Asked asked = Ask(Question("q", "clip", 40));
  asked.sink->Await();
  ASSERT_TRUE(asked.sink->status().ok()) << asked.sink->status();
  EXPECT_EQ(asked.sink->text(), whole.sink->text());
  const GenerateResult result = asked.sink->result();
  EXPECT_EQ(result.usage.frames_decoded, 40);
  EXPECT_EQ(result.usage.frames_used, 40);
  EXPECT_EQ(result.visuals[0].frames_decoded, 40);
  EXPECT_GT(result.timing.decode, absl::ZeroDuration());
  EXPECT_EQ(runtime_->visuals().cached_bytes(), 0);
}

TEST_F(RuntimeTest, SeveralStreamedClipsInOneQuestion) {
  parts_.patch_buffer_bytes = kTwoPatches;
  parts_.media_threads = 4;
  Start();
  std::vector<Asked> asked;
  for (int i = 0; i < 12; ++i) {
    GenerateRequest request = Question("q", absl::StrCat("clip ", i), 40);
    for (const int frames : {60, 4, 90}) {
      VideoPart video;
      video.source = FakeSource(absl::StrCat("other ", frames));
      video.sampling.num_frames = frames;
      request.turns.back().parts.emplace_back(std::move(video));
    }
    asked.push_back(Ask(std::move(request)));
  }
  for (const Asked& one : asked) {
    one.sink->Await();
    ASSERT_TRUE(one.sink->status().ok()) << one.sink->status();
    EXPECT_EQ(one.sink->result().usage.frames_used, 194);
  }
}

TEST_F(RuntimeTest, ADecoderThatDiesMidwayEndsItsRequestOnly) {
  parts_.patch_buffer_bytes = kTwoPatches;
  Start();
  const Asked dies = Ask(Question("q", "dies", 40));
  const Asked lives = Ask(Question("q", "clip", 40));
  dies.sink->Await();
  lives.sink->Await();
  EXPECT_EQ(ReasonOf(dies.sink->status()), "DECODER_DIED");
  EXPECT_TRUE(lives.sink->status().ok()) << lives.sink->status();
  EXPECT_EQ(runtime_->Drain(absl::Seconds(10)), 0);
}

TEST_F(RuntimeTest, CancelWakesAStreamThatWaitsForTheModel) {
  fake_.on_run = [&](const StepPlan& plan) {
    if (plan.vision.empty()) return;
    if (!started_.HasBeenNotified()) started_.Notify();
    go_.WaitForNotification();
  };
  parts_.patch_buffer_bytes = kTwoPatches;
  parts_.media_threads = 1;
  Start();
  const Asked asked = Ask(Question("q", "clip", 400));
  started_.WaitForNotification();  // the model hangs; the decoding thread fills the buffer
  runtime_->Cancel(asked.id);
  asked.sink->Await();
  EXPECT_EQ(asked.sink->status().code(), absl::StatusCode::kCancelled);
  go_.Notify();
  const Asked next = Ask(Question("q", "other", 400));  // by the same, only thread
  next.sink->Await();
  EXPECT_TRUE(next.sink->status().ok()) << next.sink->status();
}

TEST_F(RuntimeTest, DestructionWhileClipsStream) {
  parts_.patch_buffer_bytes = kTwoPatches;
  Start();
  std::vector<Asked> asked;
  for (int i = 0; i < 10; ++i) asked.push_back(Ask(Question("q", absl::StrCat("clip ", i), 400)));
  runtime_.reset();
  for (const Asked& one : asked) EXPECT_TRUE(one.sink->finished());
}

TEST_F(RuntimeTest, DestructionWithWorkInEveryStage) {
  on_load_ = [&] { go_.WaitForNotification(); };
  Start();
  std::vector<Asked> asked;
  for (int i = 0; i < 6; ++i) asked.push_back(Ask(Question("q", absl::StrCat("clip ", i))));
  for (int i = 0; i < 6; ++i) {
    GenerateRequest request = Question("q");
    request.generation.max_output_tokens = 3000;
    request.generation.ignore_eos = true;
    asked.push_back(Ask(std::move(request)));
  }
  go_.Notify();
  runtime_.reset();
  for (const Asked& one : asked) EXPECT_TRUE(one.sink->finished());
}

}  // namespace
}  // namespace videonsa
