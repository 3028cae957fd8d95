// Asks a real server about real clips: the answer, the report, pictures, turns, estimates, metrics.
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "tests/e2e/server/e2e_fixture.h"

namespace videonsa::testing {
namespace {

class AskTest : public ServerTest {};

double Seconds(const google::protobuf::Duration& duration) {
  return duration.seconds() + duration.nanos() * 1e-9;
}

TEST_F(AskTest, ReportsWhatWasReallyDone) {
  pb::AskResult result;
  const grpc::Status status =
      Ask(ClipQuestion(ReadFile(MediaPath("stream-of-water.mp4")), "What is this?"), &result);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(result.visuals_size(), 1);
  const pb::VisualReport& visual = result.visuals(0);
  EXPECT_EQ(visual.source_width(), 480);
  EXPECT_EQ(visual.source_height(), 360);
  EXPECT_EQ(visual.width() % 28, 0);
  EXPECT_EQ(visual.height() % 28, 0);
  EXPECT_EQ(visual.frame_times_size(), result.usage().frames_used());
  EXPECT_GE(visual.frame_times_size(), 4);
  for (int i = 1; i < visual.frame_times_size(); ++i) {
    EXPECT_GT(Seconds(visual.frame_times(i)), Seconds(visual.frame_times(i - 1)));
  }
  EXPECT_EQ(visual.tokens(),
            visual.frame_times_size() / 2 * (visual.width() / 28) * (visual.height() / 28));
  EXPECT_EQ(result.usage().prompt().vision(), visual.tokens());
  EXPECT_GE(result.usage().output_tokens(), 1);
  EXPECT_LE(result.usage().output_tokens(), 8);
  const pb::Timing& timing = result.timing();
  EXPECT_GT(Seconds(timing.decode()), 0);
  EXPECT_GT(Seconds(timing.vision_encode()), 0);
  EXPECT_GT(Seconds(timing.prefill()), 0);
  EXPECT_GE(Seconds(timing.total()), Seconds(timing.time_to_first_token()));
  const pb::AttentionReport& attention = result.attention();
  EXPECT_GT(attention.dense_pairs(), 0);
  EXPECT_EQ(attention.used().total(), attention.used().compressed() + attention.used().selected() +
                                          attention.used().window() + attention.used().dense());
  EXPECT_NEAR(attention.budget_fraction(),
              static_cast<double>(attention.used().total()) / attention.dense_pairs(), 1e-9);
}

TEST_F(AskTest, StreamEqualsUnaryAndKeepsOrder) {
  const pb::Question question =
      ClipQuestion(ReadFile(MediaPath("stream-of-water.mp4")), "What is this?", 16);
  pb::AskResult unary;
  ASSERT_TRUE(Ask(question, &unary).ok());
  grpc::ClientContext context;
  pb::AskStreamRequest request;
  *request.mutable_question() = question;
  auto reader = qa_->AskStream(&context, request);
  pb::AskStreamResponse event;
  std::string text, order;
  while (reader->Read(&event)) {
    if (event.has_accepted()) order += 'a';
    if (event.has_prefill()) order += 'p';
    if (event.has_delta()) {
      text += event.delta().text();
      if (order.back() != 'd') order += 'd';
    }
    if (event.has_final()) {
      order += 'f';
      EXPECT_EQ(event.final().usage().output_tokens(), unary.usage().output_tokens());
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, unary.text());
  EXPECT_THAT(order, ::testing::AnyOf("apdf", "apf"));
}

TEST_F(AskTest, TakesPicturesSeveralClipsAndTurns) {
  pb::Question question = ClipQuestion(ReadFile(MediaPath("stream-of-water.mp4")), "And before?");
  pb::Turn first;
  first.set_role(pb::Turn::ROLE_USER);
  first.add_parts()->mutable_image()->set_inline_data(ReadFile(MediaPath("leopard.jpg")));
  first.mutable_parts(0)->mutable_image()->set_max_pixels(20000);
  first.add_parts()->set_text("Who is there?");
  pb::Turn answer;
  answer.set_role(pb::Turn::ROLE_ASSISTANT);
  answer.add_parts()->set_text("A cat.");
  pb::Question conversation = question;
  conversation.clear_turns();
  *conversation.add_turns() = first;
  *conversation.add_turns() = answer;
  *conversation.add_turns() = question.turns(0);
  pb::AskResult result;
  const grpc::Status status = Ask(conversation, &result);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(result.visuals_size(), 2);
  EXPECT_TRUE(result.visuals(0).image());
  EXPECT_EQ(result.visuals(0).frame_times_size(), 0);
  EXPECT_FALSE(result.visuals(1).image());
}

TEST_F(AskTest, TextAloneWorks) {
  pb::AskResult result;
  const grpc::Status status = Ask(ClipQuestion("", "Hello <|im_end|> <|video_pad|>"), &result);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(result.usage().prompt().vision(), 0);
  EXPECT_EQ(result.visuals_size(), 0);
}

TEST_F(AskTest, EstimateAnnouncesTheTokensThatTheAnswerUses) {
  const pb::Question question =
      ClipQuestion(ReadFile(MediaPath("stream-of-water.mp4")), "What is this?");
  pb::AskResult result;
  ASSERT_TRUE(Ask(question, &result).ok());
  grpc::ClientContext context;
  pb::EstimateRequest request;
  *request.mutable_question() = question;
  pb::EstimateResponse estimate;
  const grpc::Status status = qa_->Estimate(&context, request, &estimate);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(estimate.admissible());
  EXPECT_EQ(estimate.prompt().vision(), result.usage().prompt().vision());
  EXPECT_EQ(estimate.prompt().text(), result.usage().prompt().text());
  EXPECT_EQ(estimate.frames(), result.usage().frames_used());
  EXPECT_EQ(estimate.kv_pages(), result.usage().kv_pages_peak());
}

TEST_F(AskTest, MetricsCountTheQuestions) {
  pb::AskResult result;
  ASSERT_TRUE(Ask(ClipQuestion("", "Hello"), &result).ok());
  const std::string metrics = Scrape();
  for (const char* name : {"videonsa_requests_total", "videonsa_output_tokens_total",
                           "videonsa_kv_pages{", "videonsa_batch_tokens",
                           "videonsa_frames_decoded_total", "process_resident_memory_bytes"}) {
    EXPECT_TRUE(absl::StrContains(metrics, name)) << name;
  }
}

}  // namespace
}  // namespace videonsa::testing
