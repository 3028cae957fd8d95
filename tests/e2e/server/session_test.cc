// Sessions and AskMany through a real server and the bundled model: later turns, appends and
// several questions about one clip answer token for token as fresh requests with the same content.
#include <chrono>
#include <thread>

#include "tests/e2e/server/e2e_fixture.h"

namespace videonsa::testing {
namespace {

class SessionE2eTest : public ServerTest {
 protected:
  static pb::Part ClipPart(const std::string& name) {
    pb::Part part;
    part.mutable_clip()->set_inline_data(ReadFile(MediaPath(name)));
    part.mutable_clip()->mutable_sampling()->set_max_pixels_per_frame(50176);
    part.mutable_clip()->mutable_sampling()->set_min_pixels_per_frame(3136);
    return part;
  }
  static pb::Question Greedy(int tokens) {
    pb::Question question;
    question.mutable_generation()->set_max_output_tokens(tokens);
    question.mutable_generation()->set_temperature(0);
    question.mutable_generation()->set_repetition_penalty(1);
    question.mutable_generation()->set_top_logprobs(0);
    return question;
  }
  static std::vector<int32_t> IdsOf(const pb::AskResult& result) {
    std::vector<int32_t> ids;
    for (const pb::TokenLogprob& token : result.logprobs()) ids.push_back(token.token_id());
    return ids;
  }
  static double Metric(const std::string& line) {
    const std::string body = Scrape();
    const size_t at = body.find("\n" + line + " ");
    return at == std::string::npos ? -1 : std::stod(body.substr(at + line.size() + 2));
  }
  // The metric once it has `value`, else what it has after ten seconds: the engine counts a moment
  // after it has answered.
  static double MetricSoon(const std::string& line, double value) {
    for (int wait = 0; wait < 500 && Metric(line) != value; ++wait) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return Metric(line);
  }
};

TEST_F(SessionE2eTest, TurnsAppendsAndFanOutAnswerAsFreshRequests) {
  const std::string questions[] = {"What happens in the clip?", "What colour is it?",
                                   "Which of the two came first?"};
  // Fresh answers first, by a server that has seen nothing.
  std::vector<std::vector<int32_t>> fresh;
  std::vector<std::string> texts;
  pb::Question talk = Greedy(24);
  pb::Turn* user = talk.add_turns();
  user->set_role(pb::Turn::ROLE_USER);
  *user->add_parts() = ClipPart("stream-of-water.mp4");
  for (int i = 0; i < 3; ++i) {
    if (i == 2) *user->add_parts() = ClipPart("sample_video_only.mp4");
    user->add_parts()->set_text(questions[i]);
    StartServer();
    pb::AskResult result;
    const grpc::Status status = Ask(talk, &result);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(result.kv_reuse(), pb::KV_REUSE_NONE);
    fresh.push_back(IdsOf(result));
    texts.push_back(result.text());
    pb::Turn* answer = talk.add_turns();
    answer->set_role(pb::Turn::ROLE_ASSISTANT);
    answer->add_parts()->set_text(result.text());
    user = talk.add_turns();
    user->set_role(pb::Turn::ROLE_USER);
  }

  StartServer();
  pb::CreateSessionRequest create;
  create.add_turns()->set_role(pb::Turn::ROLE_USER);
  *create.mutable_turns(0)->add_parts() = ClipPart("stream-of-water.mp4");
  grpc::ClientContext create_context;
  pb::CreateSessionResponse session;
  grpc::Status status = qa_->CreateSession(&create_context, create, &session);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(session.kv_pages(), (session.prompt().text() + session.prompt().vision()) / 64);
  EXPECT_EQ(MetricSoon("videonsa_sessions", 1), 1);
  for (int i = 0; i < 3; ++i) {
    if (i == 2) {
      pb::AppendToSessionRequest append;
      append.set_session(session.session());
      *append.add_parts() = ClipPart("sample_video_only.mp4");
      grpc::ClientContext context;
      pb::AppendToSessionResponse appended;
      status = qa_->AppendToSession(&context, append, &appended);
      ASSERT_TRUE(status.ok()) << status.error_message();
      EXPECT_GT(appended.kv_pages(), session.kv_pages());
    }
    pb::Question question = Greedy(24);
    question.set_session(session.session());
    question.add_turns()->set_role(pb::Turn::ROLE_USER);
    question.mutable_turns(0)->add_parts()->set_text(questions[i]);
    pb::AskResult result;
    status = Ask(question, &result);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(IdsOf(result), fresh[i]) << "turn " << i;
    EXPECT_EQ(result.text(), texts[i]);
    EXPECT_EQ(result.kv_reuse(), pb::KV_REUSE_EXACT);
    EXPECT_EQ(result.usage().frames_decoded(), 0) << "the clip was decoded again";
  }
  pb::GetSessionRequest get;
  get.set_session(session.session());
  pb::GetSessionResponse state;
  grpc::ClientContext get_context;
  ASSERT_TRUE(qa_->GetSession(&get_context, get, &state).ok());
  EXPECT_EQ(state.turns(), 6);
  EXPECT_EQ(state.visuals(), 2);
  EXPECT_EQ(MetricSoon("videonsa_kv_pages{state=\"pinned\"}", state.kv_pages()), state.kv_pages());

  pb::DeleteSessionRequest remove;
  remove.set_session(session.session());
  pb::DeleteSessionResponse removed;
  grpc::ClientContext remove_context;
  ASSERT_TRUE(qa_->DeleteSession(&remove_context, remove, &removed).ok());
  EXPECT_EQ(MetricSoon("videonsa_sessions", 0), 0);
  EXPECT_EQ(MetricSoon("videonsa_kv_pages{state=\"pinned\"}", 0), 0);
}

TEST_F(SessionE2eTest, SeveralQuestionsPrefillTheClipOnce) {
  std::vector<std::string> questions;
  for (int i = 0; i < 5; ++i) questions.push_back("Number " + std::to_string(i) + ": what is it?");
  const pb::Part clip = ClipPart("sample_video_only.mp4");
  std::vector<std::vector<int32_t>> fresh;
  for (const std::string& text : questions) {
    // Another text before the clip would be another prompt: a new server has seen nothing.
    if (fresh.empty()) StartServer();
    pb::Question question = Greedy(16);
    question.add_turns()->set_role(pb::Turn::ROLE_USER);
    *question.mutable_turns(0)->add_parts() = clip;
    question.mutable_turns(0)->add_parts()->set_text(text);
    pb::AskResult result;
    ASSERT_TRUE(Ask(question, &result).ok());
    fresh.push_back(IdsOf(result));
  }
  StartServer();
  pb::AskManyRequest request;
  *request.mutable_shared() = Greedy(16);
  request.mutable_shared()->add_turns()->set_role(pb::Turn::ROLE_USER);
  *request.mutable_shared()->mutable_turns(0)->add_parts() = clip;
  for (const std::string& text : questions) request.add_questions(text);
  grpc::ClientContext context;
  auto reader = qa_->AskMany(&context, request);
  pb::AskManyResponse answer;
  int answers = 0, exact = 0;
  int64_t decoded = 0;
  while (reader->Read(&answer)) {
    ASSERT_TRUE(answer.has_result()) << answer.error().message();
    ++answers;
    exact += answer.result().kv_reuse() == pb::KV_REUSE_EXACT;
    decoded += answer.result().usage().frames_decoded() > 0;
    EXPECT_EQ(IdsOf(answer.result()), fresh[answer.question_index()]) << answer.question_index();
  }
  const grpc::Status status = reader->Finish();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(answers, 5);
  EXPECT_EQ(exact, 4);
  EXPECT_EQ(decoded, 1);
}

}  // namespace
}  // namespace videonsa::testing
