#include "runtime/serving/answer_writer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "runtime/base/check.h"
#include "tests/support/recording_sink.h"

namespace videonsa {
namespace {

const Tokenizer& SmallTokenizer() {
  static const Tokenizer* const tokenizer =
      Tokenizer::Load(std::string(VIDEONSA_TEST_DATA) + "/text/small")->release();
  return *tokenizer;
}

std::vector<int32_t> Ids(const std::string& text) {
  absl::StatusOr<std::vector<int32_t>> ids = SmallTokenizer().Encode(text);
  VNSA_CHECK(ids.ok()) << ids.status();
  return *std::move(ids);
}

class AnswerWriterTest : public ::testing::Test, protected AnswerControl {
 protected:
  void Stop(RequestId) override { ++stops_; }
  void Cancel(RequestId) override { ++cancels_; }

  std::shared_ptr<AnswerWriter> Open(std::shared_ptr<RecordingSink> sink,
                                     const std::vector<std::string>& stops = {}) {
    VNSA_CHECK(stage_.TryOpen());
    auto writer = std::make_shared<AnswerWriter>(std::move(sink), SmallTokenizer(),
                                                 *StopMatcher::Create(stops), &stage_,
                                                 static_cast<AnswerControl*>(this));
    writer->Accepted(RequestId{1}, 0);
    writer->Progress("prefill", 1, 2);
    writer->Prefilled({}, 0, absl::ZeroDuration());
    return writer;
  }
  static void Write(AnswerWriter& writer, const std::string& text) {
    for (const int32_t id : Ids(text)) writer.Token({.token_id = id});
  }

  std::atomic<int> stops_{0}, cancels_{0};
  DeliveryStage stage_{2, 64};
};

TEST_F(AnswerWriterTest, DeliversTextTokensAndTheEndToken) {
  auto sink = std::make_shared<RecordingSink>();
  auto writer = Open(sink);
  const std::string text = "Ein grünes Boot, 三 boats 🙂.";
  Write(*writer, text);
  writer->Token({.token_id = 958, .is_stop_token = true});
  GenerateResult result;
  result.usage.output_tokens = 77;
  writer->Finish(absl::OkStatus(), std::move(result));
  sink->Await();
  EXPECT_EQ(sink->text(), text);
  EXPECT_EQ(sink->token_count(), static_cast<int>(Ids(text).size()) + 1);
  EXPECT_EQ(sink->result().usage.output_tokens, 77);
  EXPECT_EQ(sink->result().finish_reason, FinishReason::kStop);
  EXPECT_EQ(stops_.load(), 0);
}

TEST_F(AnswerWriterTest, AStopStringEndsTheAnswerWhereverItIsCut) {
  auto sink = std::make_shared<RecordingSink>();
  auto writer = Open(sink, {"END"});
  Write(*writer, "one two E");
  Write(*writer, "ND three");
  GenerateResult result;
  result.finish_reason = FinishReason::kLength;  // the engine had not heard of it yet
  result.usage.output_tokens = 1000;
  writer->Finish(absl::OkStatus(), std::move(result));
  sink->Await();
  EXPECT_EQ(sink->text(), "one two ");
  EXPECT_EQ(stops_.load(), 1);
  EXPECT_EQ(sink->result().finish_reason, FinishReason::kStop);
  EXPECT_EQ(sink->result().matched_stop, "END");
  EXPECT_LT(sink->result().usage.output_tokens, 1000);
  EXPECT_LE(sink->token_count(), sink->result().usage.output_tokens);
}

TEST_F(AnswerWriterTest, HeldBackTextComesAtTheEnd) {
  auto sink = std::make_shared<RecordingSink>();
  auto writer = Open(sink, {"END"});
  Write(*writer, "one EN");
  writer->Finish(absl::OkStatus(), {});
  sink->Await();
  EXPECT_EQ(sink->text(), "one EN");
  EXPECT_EQ(sink->token_count(), static_cast<int>(Ids("one EN").size()));
}

TEST_F(AnswerWriterTest, ASinkThatRefusesCancelsOnce) {
  auto sink = std::make_shared<RecordingSink>(1);
  auto writer = Open(sink);
  Write(*writer, "a long text that nobody reads");
  writer->Finish(absl::CancelledError("cancelled"), {});
  sink->Await();
  EXPECT_EQ(cancels_.load(), 1);
  EXPECT_EQ(sink->text(), "");
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
}

TEST_F(AnswerWriterTest, ProgressAfterTheEndIsDropped) {
  auto sink = std::make_shared<RecordingSink>();
  auto writer = Open(sink);
  writer->Finish(absl::OkStatus(), {});
  writer->Progress("decode", 1, 2);
  sink->Await();
  stage_.AwaitEmpty();
  EXPECT_TRUE(sink->finished());
}

TEST_F(AnswerWriterTest, ManyAnswersOnFewThreadsKeepTheirOrder) {
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<std::thread> engines;
  for (int i = 0; i < 32; ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    engines.emplace_back([this, i, writer = Open(sinks.back())] {
      for (int k = 0; k < 50; ++k) Write(*writer, std::to_string(i) + " ");
      writer->Finish(absl::OkStatus(), {});
    });
  }
  for (std::thread& engine : engines) engine.join();
  stage_.AwaitEmpty();
  for (int i = 0; i < 32; ++i) {
    std::string expected;
    for (int k = 0; k < 50; ++k) expected += std::to_string(i) + " ";
    EXPECT_EQ(sinks[i]->text(), expected);
  }
}

TEST_F(AnswerWriterTest, TheStageRefusesMoreThanItsBound) {
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(stage_.TryOpen());
  EXPECT_FALSE(stage_.TryOpen());
  for (int i = 0; i < 64; ++i) stage_.Close();
}

}  // namespace
}  // namespace videonsa
