// Sessions and AskMany over real gRPC, in process, around a fake runtime: histories, tenants,
// ceilings, expiry, and that every session is free again when its caller has the answer.
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kSoon = absl::Seconds(20);

void AddClip(v1::Turn& turn, const std::string& bytes) {
  turn.set_role(v1::Turn::ROLE_USER);
  turn.add_parts()->mutable_clip()->set_inline_data(bytes);
}

v1::CreateSessionRequest CreateRequest(const std::string& bytes = "clip one") {
  v1::CreateSessionRequest request;
  AddClip(*request.add_turns(), bytes);
  return request;
}

class SessionTest : public ::testing::Test {
 protected:
  void Start(const FakeOptions& fake = FakeOptions(),
             ServerOptions options = TestServer::Options()) {
    server_ = std::make_unique<TestServer>(fake, options);
  }
  grpc::Status Create(const v1::CreateSessionRequest& request, v1::CreateSessionResponse* out) {
    grpc::ClientContext context;
    return server_->questions().CreateSession(&context, request, out);
  }
  std::string Created(const v1::CreateSessionRequest& request = CreateRequest()) {
    v1::CreateSessionResponse response;
    const grpc::Status status = Create(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.session();
  }
  grpc::Status Append(const std::string& session, const std::string& bytes,
                      v1::AppendToSessionResponse* out = nullptr) {
    grpc::ClientContext context;
    v1::AppendToSessionRequest request;
    request.set_session(session);
    if (!bytes.empty()) request.add_parts()->mutable_clip()->set_inline_data(bytes);
    v1::AppendToSessionResponse response;
    const grpc::Status status = server_->questions().AppendToSession(&context, request, &response);
    if (out != nullptr) *out = response;
    return status;
  }
  grpc::Status Get(const std::string& session, v1::GetSessionResponse* out) {
    grpc::ClientContext context;
    v1::GetSessionRequest request;
    request.set_session(session);
    return server_->questions().GetSession(&context, request, out);
  }
  void Delete(const std::string& session) {
    grpc::ClientContext context;
    v1::DeleteSessionRequest request;
    request.set_session(session);
    v1::DeleteSessionResponse response;
    const grpc::Status status = server_->questions().DeleteSession(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  static v1::Question InSession(const std::string& session, const std::string& text) {
    v1::Question question = TextQuestion(text);
    question.set_session(session);
    return question;
  }
  // Answers of AskMany by index; errors by reason.
  grpc::Status Many(const v1::AskManyRequest& request, std::vector<std::string>* answers) {
    grpc::ClientContext context;
    auto reader = server_->questions().AskMany(&context, request);
    answers->assign(request.questions_size(), "");
    v1::AskManyResponse response;
    while (reader->Read(&response)) {
      std::string& answer = (*answers)[response.question_index()];
      EXPECT_EQ(answer, "");
      EXPECT_NE(response.has_result(), response.has_error());
      answer = response.has_result() ? response.result().text() : response.error().reason();
    }
    return reader->Finish();
  }

  std::unique_ptr<TestServer> server_;
};

TEST_F(SessionTest, EveryTurnIsAskedWithAllThatCameBefore) {
  Start();
  const std::string session = Created();
  EXPECT_THAT(session, ::testing::StartsWith("sessions/"));
  EXPECT_TRUE(server_->runtime().last_request().open_turn);
  v1::AskResult first;
  ASSERT_TRUE(server_->Ask(InSession(session, "What?"), &first).ok());
  GenerateRequest asked = server_->runtime().last_request();
  ASSERT_EQ(asked.turns.size(), 1u);  // the question goes on with the open turn
  ASSERT_EQ(asked.turns[0].parts.size(), 2u);
  EXPECT_FALSE(asked.open_turn);
  EXPECT_TRUE(asked.expects_reuse);
  ASSERT_TRUE(server_->Ask(InSession(session, "Why?"), nullptr).ok());
  asked = server_->runtime().last_request();
  ASSERT_EQ(asked.turns.size(), 3u);
  EXPECT_EQ(asked.turns[1].role, Role::kAssistant);
  EXPECT_EQ(std::get<TextPart>(asked.turns[1].parts[0]).text, first.text());
  EXPECT_EQ(asked.turns[1].token_ids.size(), 16u);
  EXPECT_EQ(std::get<TextPart>(asked.turns[2].parts[0]).text, "Why?");
  v1::GetSessionResponse state;
  ASSERT_TRUE(Get(session, &state).ok());
  EXPECT_EQ(state.turns(), 4);
  EXPECT_EQ(state.visuals(), 1);
  EXPECT_EQ(state.semantics(), "dense");
  EXPECT_TRUE(state.appendable());
  EXPECT_FALSE(state.busy());
  EXPECT_GT(state.kv_pages(), 0);
  EXPECT_GT(state.expire_time().seconds(), state.create_time().seconds());
}

TEST_F(SessionTest, StreamedTurnsCountToo) {
  Start();
  const std::string session = Created();
  for (int turn = 0; turn < 3; ++turn) {
    grpc::ClientContext context;
    v1::AskStreamRequest request;
    *request.mutable_question() = InSession(session, "Turn " + std::to_string(turn));
    auto reader = server_->questions().AskStream(&context, request);
    v1::AskStreamResponse event;
    while (reader->Read(&event)) {
    }
    const grpc::Status status = reader->Finish();
    ASSERT_TRUE(status.ok()) << turn << " " << status.error_message();
  }
  v1::GetSessionResponse state;
  ASSERT_TRUE(Get(session, &state).ok());
  EXPECT_EQ(state.turns(), 6);
}

TEST_F(SessionTest, AFailedTurnLeavesNoTrace) {
  Start();
  const std::string session = Created();
  EXPECT_EQ(server_->Ask(InSession(session, "fail:INTERNAL"), nullptr).error_code(),
            grpc::StatusCode::INTERNAL);
  EXPECT_EQ(server_->Ask(InSession(session, "refuse"), nullptr).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  ASSERT_TRUE(server_->Ask(InSession(session, "What?"), nullptr).ok());
  EXPECT_EQ(server_->runtime().last_request().turns.size(), 1u);
}

TEST_F(SessionTest, AppendedPartsFollowTheTurnsThatWere) {
  Start();
  const std::string session = Created();
  v1::AppendToSessionResponse appended;
  ASSERT_TRUE(Append(session, "clip two", &appended).ok());
  EXPECT_EQ(server_->runtime().last_request().turns.size(), 1u);
  EXPECT_TRUE(server_->runtime().last_request().must_pin);
  ASSERT_TRUE(server_->Ask(InSession(session, "What?"), nullptr).ok());
  EXPECT_EQ(server_->runtime().last_request().turns[0].parts.size(), 3u);
  ASSERT_TRUE(Append(session, "clip three").ok());  // after an answer: a turn of its own
  EXPECT_EQ(server_->runtime().last_request().turns.size(), 3u);
  EXPECT_EQ(ReasonOf(Append(session, "")), "FIELD_INVALID");
  EXPECT_EQ(ReasonOf(Append("sessions/none", "clip")), "SESSION_NOT_FOUND");
}

TEST_F(SessionTest, RowsThatDependOnLaterFramesAreNotAppendedTo) {
  FakeOptions fake;
  fake.model.semantics = AttentionSemantics::kReleasedNsa;
  Start(fake);
  const std::string session = Created();
  const grpc::Status status = Append(session, "clip two");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "SESSION_NOT_APPENDABLE");
  EXPECT_THAT(status.error_message(), HasSubstr("released_nsa"));
  v1::GetSessionResponse state;
  ASSERT_TRUE(Get(session, &state).ok());
  EXPECT_FALSE(state.appendable());
  EXPECT_TRUE(server_->Ask(InSession(session, "What?"), nullptr).ok());
}

TEST_F(SessionTest, WhatTheSessionHasDecidedMayNotBeSaidAgain) {
  Start();
  const std::string session = Created();
  v1::Question question = InSession(session, "What?");
  question.set_system_instruction("Be brief.");
  EXPECT_EQ(ReasonOf(server_->Ask(question, nullptr)), "FIELD_INVALID");
  question = InSession(session, "What?");
  question.mutable_attention()->set_mode(v1::AttentionConfig::MODE_DENSE);
  EXPECT_EQ(ReasonOf(server_->Ask(question, nullptr)), "FIELD_INVALID");
  question = InSession(session, "What?");
  *question.add_turns() = question.turns(0);
  EXPECT_EQ(ReasonOf(server_->Ask(question, nullptr)), "FIELD_INVALID");
  EXPECT_TRUE(server_->Ask(InSession(session, "What?"), nullptr).ok());
}

TEST_F(SessionTest, UnknownDeletedAndBadlyNamedSessionsAreNotFound) {
  Start();
  const std::string session = Created();
  Delete(session);
  Delete(session);  // idempotent
  EXPECT_EQ(server_->runtime().unpinned(), 1);
  for (const std::string& name : {session, std::string("sessions/x"), std::string("x")}) {
    const grpc::Status status = server_->Ask(InSession(name, "What?"), nullptr);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(ReasonOf(status), "SESSION_NOT_FOUND");
    EXPECT_EQ(DetailOf<google::rpc::ResourceInfo>(status).resource_type(), "session");
    v1::GetSessionResponse state;
    EXPECT_EQ(ReasonOf(Get(name, &state)), "SESSION_NOT_FOUND");
  }
}

TEST_F(SessionTest, OneTurnAtATime) {
  FakeOptions fake;
  fake.manual = true;
  Start(fake);
  std::thread creator;
  std::string session;
  creator = std::thread([&] { session = Created(); });
  while (server_->runtime().open() == 0) std::this_thread::yield();
  server_->runtime().Step(1);
  creator.join();
  grpc::ClientContext context;
  v1::AskStreamRequest request;
  *request.mutable_question() = InSession(session, "silent");
  auto reader = server_->questions().AskStream(&context, request);
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  const grpc::Status busy = server_->Ask(InSession(session, "What?"), nullptr);
  EXPECT_EQ(busy.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(ReasonOf(busy), "SESSION_BUSY");
  EXPECT_GT(DetailOf<google::rpc::RetryInfo>(busy).retry_delay().seconds(), 0);
  Delete(session);  // while it answers: the answer goes on, the session is gone
  v1::GetSessionResponse state;
  EXPECT_EQ(ReasonOf(Get(session, &state)), "SESSION_NOT_FOUND");
  context.TryCancel();
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server_->runtime().WaitIdle(kSoon));
}

TEST_F(SessionTest, ACallerWhoLeavesDuringCreationLeavesNoSession) {
  FakeOptions fake;
  fake.manual = true;
  Start(fake);
  grpc::ClientContext context;
  std::thread creator([&] {
    v1::CreateSessionResponse response;
    EXPECT_EQ(server_->questions().CreateSession(&context, CreateRequest(), &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  while (server_->runtime().open() == 0) std::this_thread::yield();
  context.TryCancel();
  creator.join();
  EXPECT_TRUE(server_->runtime().WaitIdle(kSoon));
  EXPECT_EQ(server_->server().core().sessions.size(), 0);
  EXPECT_EQ(server_->runtime().unpinned(), 1);
}

TEST_F(SessionTest, ARepeatedCreationIsTheSameSession) {
  Start();
  v1::CreateSessionRequest request = CreateRequest();
  request.set_request_id("5f0c");
  const std::string session = Created(request);
  EXPECT_EQ(Created(request), session);
  EXPECT_EQ(server_->runtime().submitted(), 1);
  request.mutable_ttl()->set_seconds(5);
  v1::CreateSessionResponse response;
  EXPECT_EQ(ReasonOf(Create(request, &response)), "REQUEST_ID_REUSED");
}

TEST_F(SessionTest, CeilingsAreRefusedWithNumbers) {
  ServerOptions options = TestServer::Options();
  options.sessions.tenant = 2;
  options.sessions.bytes = 24;
  Start(FakeOptions(), options);
  v1::CreateSessionResponse response;
  Created();
  EXPECT_EQ(ReasonOf(Create(CreateRequest(std::string(20, 'x')), &response)), "QUOTA_EXCEEDED");
  const std::string second = Created();
  const grpc::Status third = Create(CreateRequest("c"), &response);
  EXPECT_EQ(third.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(third), "QUOTA_EXCEEDED");
  EXPECT_THAT(third.error_message(), HasSubstr("limit 2"));
  EXPECT_EQ(ReasonOf(Append(second, std::string(20, 'x'))), "QUOTA_EXCEEDED");
  Delete(second);
  Created();
}

TEST_F(SessionTest, TurnsAndClipsOfAllTurnsAreBounded) {
  ServerOptions options = TestServer::Options();
  options.question.max_clips = 2;
  options.question.max_turns = 3;
  Start(FakeOptions(), options);
  const std::string session = Created();
  ASSERT_TRUE(Append(session, "two").ok());
  EXPECT_EQ(ReasonOf(Append(session, "three")), "FIELD_INVALID");
  ASSERT_TRUE(server_->Ask(InSession(session, "One?"), nullptr).ok());
  ASSERT_TRUE(server_->Ask(InSession(session, "Two?"), nullptr).ok());
  EXPECT_EQ(ReasonOf(server_->Ask(InSession(session, "Three?"), nullptr)), "FIELD_INVALID");
}

TEST_F(SessionTest, BadCreationsAreNamed) {
  Start();
  v1::CreateSessionResponse response;
  EXPECT_EQ(ReasonOf(Create(v1::CreateSessionRequest(), &response)), "FIELD_INVALID");
  v1::CreateSessionRequest text;
  text.add_turns()->set_role(v1::Turn::ROLE_USER);
  text.mutable_turns(0)->add_parts()->set_text("no clip");
  EXPECT_EQ(ReasonOf(Create(text, &response)), "FIELD_INVALID");
  for (const int64_t seconds : {int64_t{-1}, int64_t{0}, int64_t{1} << 30}) {
    v1::CreateSessionRequest request = CreateRequest();
    request.mutable_ttl()->set_seconds(seconds);
    EXPECT_EQ(ReasonOf(Create(request, &response)), "FIELD_INVALID") << seconds;
  }
  EXPECT_EQ(server_->server().core().sessions.size(), 0);
}

// ---- AskMany

v1::AskManyRequest ManyRequest(const std::vector<std::string>& questions) {
  v1::AskManyRequest request;
  AddClip(*request.mutable_shared()->add_turns(), "clip");
  for (const std::string& question : questions) request.add_questions(question);
  return request;
}

TEST_F(SessionTest, ManyQuestionsGetTheAnswersOfEachAlone) {
  Start();
  const std::vector<std::string> questions = {"One?", "Two?", "Three?", "Four?"};
  std::vector<std::string> answers;
  const v1::AskManyRequest request = ManyRequest(questions);
  const grpc::Status status = Many(request, &answers);
  ASSERT_TRUE(status.ok()) << status.error_message();
  for (size_t i = 0; i < questions.size(); ++i) {
    v1::Question alone = request.shared();
    alone.mutable_turns(0)->add_parts()->set_text(questions[i]);
    v1::AskResult result;
    ASSERT_TRUE(server_->Ask(alone, &result).ok());
    EXPECT_EQ(answers[i], result.text()) << i;
  }
  // The call lets its pages go once it is done with.
  while (server_->runtime().unpinned() == 0) std::this_thread::yield();
}

TEST_F(SessionTest, OthersWaitForTheFirstPrefillAndFailuresAreTheirOwn) {
  Start();
  std::vector<std::string> answers;
  ASSERT_TRUE(Many(ManyRequest({"refuse", "fail:INTERNAL", "Three?", "refuse"}), &answers).ok());
  EXPECT_EQ(answers[0], "QUEUE_FULL");
  EXPECT_EQ(answers[1], "INTERNAL");
  EXPECT_EQ(answers[2].size(), 16u * 5);
  EXPECT_EQ(answers[3], "QUEUE_FULL");
  ASSERT_TRUE(Many(ManyRequest({"refuse", "refuse"}), &answers).ok());
  EXPECT_EQ(answers[1], "QUEUE_FULL");
}

TEST_F(SessionTest, ManyQuestionsOfASessionLeaveItAsItIs) {
  Start();
  const std::string session = Created();
  ASSERT_TRUE(server_->Ask(InSession(session, "First?"), nullptr).ok());
  v1::AskManyRequest request;
  request.mutable_shared()->set_session(session);
  request.add_questions("One?");
  request.add_questions("Two?");
  std::vector<std::string> answers;
  const grpc::Status status = Many(request, &answers);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(server_->runtime().last_request().turns.size(), 3u);
  v1::GetSessionResponse state;
  ASSERT_TRUE(Get(session, &state).ok());
  EXPECT_EQ(state.turns(), 2);
  EXPECT_FALSE(state.busy());
  v1::AskResult result;
  ASSERT_TRUE(server_->Ask(InSession(session, "Two?"), &result).ok());
  EXPECT_EQ(result.text(), answers[1]);
}

TEST_F(SessionTest, BadRequestsOfManyAreNamed) {
  Start();
  std::vector<std::string> answers;
  EXPECT_EQ(ReasonOf(Many(ManyRequest({}), &answers)), "FIELD_INVALID");
  EXPECT_EQ(ReasonOf(Many(ManyRequest(std::vector<std::string>(33, "x")), &answers)),
            "FIELD_INVALID");
  EXPECT_EQ(ReasonOf(Many(ManyRequest({"x", ""}), &answers)), "FIELD_INVALID");
  EXPECT_EQ(ReasonOf(Many(ManyRequest({std::string(40000, 'x')}), &answers)), "FIELD_INVALID");
  v1::AskManyRequest text;
  text.mutable_shared()->add_turns()->set_role(v1::Turn::ROLE_USER);
  text.mutable_shared()->mutable_turns(0)->add_parts()->set_text("no clip");
  text.add_questions("What?");
  EXPECT_EQ(ReasonOf(Many(text, &answers)), "FIELD_INVALID");
}

TEST_F(SessionTest, ACallerOfManyWhoLeavesCancelsThemAll) {
  Start();
  grpc::ClientContext context;
  auto reader = server_->questions().AskMany(&context, ManyRequest({"silent", "silent", "silent"}));
  while (server_->runtime().open() < 3) std::this_thread::yield();
  context.TryCancel();
  v1::AskManyResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server_->runtime().WaitIdle(kSoon));
  EXPECT_EQ(server_->runtime().cancelled(), 3);
}

}  // namespace
}  // namespace videonsa
