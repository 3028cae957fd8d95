// Questions over real gRPC, in process: answers, order, cancel, deadline, slow readers, refusals.
#include <grpcpp/generic/generic_stub.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Duration kSoon = absl::Seconds(20);

v1::AskStreamRequest StreamRequest(const std::string& text, int tokens) {
  v1::AskStreamRequest request;
  *request.mutable_question() = TextQuestion(text);
  request.mutable_question()->mutable_generation()->set_max_output_tokens(tokens);
  return request;
}

std::string ExpectedAnswer(const std::string& text, int tokens, int token_bytes = 0) {
  GenerateRequest request;
  request.turns.push_back(Turn{Role::kUser, {TextPart{text}}});
  return FakeRuntime::AnswerText(request, tokens, token_bytes);
}

TEST(Ask, AnswersInOneMessage) {
  TestServer server;
  v1::AskResult result;
  const grpc::Status status = server.Ask(TextQuestion("What happens?"), &result);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(result.text(), ExpectedAnswer("What happens?", 16));
  EXPECT_EQ(result.finish_reason(), v1::AskResult::FINISH_REASON_LENGTH);
  EXPECT_EQ(result.usage().output_tokens(), 16);
  EXPECT_EQ(result.attention().dense_pairs(), 110);
  EXPECT_EQ(result.attention().used().dense(), 110);
  EXPECT_DOUBLE_EQ(result.attention().budget_fraction(), 1);
  EXPECT_EQ(result.model_version(), "fake@0123456789abcdef");
  EXPECT_EQ(result.ask_id().size(), 26u);
}

// A channel whose calls gRPC itself tries again when they end with UNAVAILABLE.
std::shared_ptr<grpc::Channel> RetryingChannel(TestServer& server, int attempts) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetServiceConfigJSON(absl::StrCat(
      R"({"methodConfig":[{"name":[{"service":"videonsa.v1.VideoQaService"}],"retryPolicy":{)",
      R"("initialBackoff":"0.01s","maxBackoff":"0.01s","backoffMultiplier":1,)",
      R"("retryableStatusCodes":["UNAVAILABLE"],"maxAttempts":)", attempts, "}}]}"));
  return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server.server().port()),
                                   grpc::InsecureChannelCredentials(), arguments);
}

TEST(Ask, SendsIdsInInitialMetadata) {
  TestServer server;
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "my-id.1");
  v1::AskRequest request;
  *request.mutable_question() = TextQuestion("Hm?");
  v1::AskResponse response;
  ASSERT_TRUE(server.questions().Ask(&context, request, &response).ok());
  const auto& metadata = context.GetServerInitialMetadata();
  ASSERT_EQ(metadata.count("x-request-id"), 1u);
  EXPECT_EQ(metadata.find("x-request-id")->second, "my-id.1");
  EXPECT_EQ(metadata.find("videonsa-ask-id")->second, response.result().ask_id());
}

TEST(AskStream, EventsComeInOrderAndAddUp) {
  TestServer server;
  grpc::ClientContext context;
  auto reader = server.questions().AskStream(&context, StreamRequest("Why?", 50));
  v1::AskStreamResponse event;
  std::string text, order;
  int tokens = 0;
  while (reader->Read(&event)) {
    char kind = '?';
    switch (event.event_case()) {
      case v1::AskStreamResponse::kAccepted:
        kind = 'a';
        break;
      case v1::AskStreamResponse::kProgress:
        kind = 'g';
        break;
      case v1::AskStreamResponse::kPrefill:
        kind = 'p';
        break;
      case v1::AskStreamResponse::kDelta:
        kind = 'd';
        text += event.delta().text();
        tokens += event.delta().token_count();
        break;
      case v1::AskStreamResponse::kFinal:
        kind = 'f';
        EXPECT_EQ(event.final().text(), "");
        EXPECT_EQ(event.final().usage().output_tokens(), 50);
        break;
      default:
        break;
    }
    if (order.empty() || order.back() != kind) order.push_back(kind);
  }
  EXPECT_TRUE(reader->Finish().ok());
  order.erase(std::remove(order.begin(), order.end(), 'g'), order.end());  // may be skipped
  EXPECT_EQ(order, "apdf");
  EXPECT_EQ(tokens, 50);
  EXPECT_EQ(text, ExpectedAnswer("Why?", 50));
}

TEST(AskStream, MergesTokensIntoDeltasOfTheAskedSize) {
  FakeOptions fake;
  fake.manual = true;
  TestServer server(fake);
  grpc::ClientContext context;
  v1::AskStreamRequest request = StreamRequest("Why?", 10);
  request.set_min_tokens_per_delta(4);
  auto reader = server.questions().AskStream(&context, request);
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));  // accepted: the question is in the runtime
  server.runtime().Step(10);
  std::vector<int> counts;
  while (reader->Read(&event)) {
    if (event.has_delta()) counts.push_back(event.delta().token_count());
  }
  EXPECT_TRUE(reader->Finish().ok());
  int sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    sum += counts[i];
    if (i + 1 < counts.size()) {
      EXPECT_GE(counts[i], 4);
    }
  }
  EXPECT_EQ(sum, 10);
}

TEST(AskStream, CancelReachesTheRuntime) {
  FakeOptions fake;
  fake.manual = true;
  TestServer server(fake);
  grpc::ClientContext context;
  auto reader = server.questions().AskStream(&context, StreamRequest("silent", 5));
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server.runtime().WaitIdle(kSoon));
  EXPECT_EQ(server.runtime().cancelled(), 1);
}

TEST(Ask, CancelReachesTheRuntime) {
  FakeOptions fake;
  fake.manual = true;
  TestServer server(fake);
  grpc::ClientContext context;
  v1::AskRequest request;
  *request.mutable_question() = TextQuestion("silent");
  v1::AskResponse response;
  std::thread canceller([&] {
    while (server.runtime().open() == 0) std::this_thread::yield();
    context.TryCancel();
  });
  EXPECT_EQ(server.questions().Ask(&context, request, &response).error_code(),
            grpc::StatusCode::CANCELLED);
  canceller.join();
  EXPECT_TRUE(server.runtime().WaitIdle(kSoon));
  EXPECT_EQ(server.runtime().cancelled(), 1);
}

TEST(AskStream, DeadlineGivesThePartialAnswer) {
  FakeOptions fake;
  fake.step = absl::Milliseconds(5);
  TestServer server(fake);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(400));
  auto reader = server.questions().AskStream(&context, StreamRequest("Long?", 100000));
  v1::AskStreamResponse event;
  while (reader->Read(&event)) {
  }
  const grpc::Status status = reader->Finish();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(event.final().finish_reason(), v1::AskResult::FINISH_REASON_DEADLINE);
  EXPECT_GT(event.final().usage().output_tokens(), 0);
}

TEST(Ask, ServerSetsADeadlineWhereTheCallerSetsNone) {
  ServerOptions options = TestServer::Options();
  options.default_deadline = absl::Milliseconds(100);
  FakeOptions fake;
  fake.step = absl::Milliseconds(1);
  TestServer server(fake, options);
  v1::Question question = TextQuestion("Long?");
  question.mutable_generation()->set_max_output_tokens(100000);
  v1::AskResult result;
  ASSERT_TRUE(server.Ask(question, &result).ok());
  EXPECT_EQ(result.finish_reason(), v1::AskResult::FINISH_REASON_DEADLINE);
}

TEST(AskStream, SlowReaderIsCutOffAndTheRestGoesOn) {
  ServerOptions options = TestServer::Options();
  options.stream_behind_bytes = 256 * 1024;
  FakeOptions fake;
  fake.token_bytes = 4096;
  TestServer server(fake, options);
  grpc::ClientContext context;
  auto reader = server.questions().AskStream(&context, StreamRequest("Flood?", 100000));
  // Nothing is read: flow control stops the transport, the rest piles up and passes the limit.
  ASSERT_TRUE(server.runtime().WaitIdle(kSoon));
  v1::AskResult result;
  EXPECT_TRUE(server.Ask(TextQuestion("Still there?"), &result).ok());
  v1::AskStreamResponse event;
  while (reader->Read(&event)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "READER_TOO_SLOW");
}

TEST(Ask, ErrorsOfTheRuntimeKeepTheirCodeButNotTheirText) {
  TestServer server;
  const grpc::Status status = server.Ask(TextQuestion("fail:INTERNAL"), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(ReasonOf(status), "INTERNAL");
  EXPECT_THAT(status.error_message(), Not(HasSubstr("/path")));
  EXPECT_THAT(status.error_details(), Not(HasSubstr("/path")));
  EXPECT_EQ(server.Ask(TextQuestion("fail:RESOURCE_EXHAUSTED"), nullptr).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(Ask, RefusalOfTheQueueSaysWhenToComeBack) {
  TestServer server;
  const grpc::Status status = server.Ask(TextQuestion("refuse"), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(status).retry_delay().seconds(), 1);
  EXPECT_EQ(DetailOf<google::rpc::RequestInfo>(status).request_id().size(), 26u);
}

TEST(Ask, FailuresCarryTheirIdsInTheTrailers) {
  TestServer server;
  for (const char* text : {"refuse", "fail:ABORTED"}) {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", "my-id.1");
    v1::AskRequest request;
    *request.mutable_question() = TextQuestion(text);
    v1::AskResponse response;
    EXPECT_FALSE(server.questions().Ask(&context, request, &response).ok());
    EXPECT_TRUE(context.GetServerInitialMetadata().empty()) << text;
    const auto& trailers = context.GetServerTrailingMetadata();
    ASSERT_EQ(trailers.count("x-request-id"), 1u) << text;
    EXPECT_EQ(trailers.find("x-request-id")->second, "my-id.1");
    EXPECT_EQ(trailers.count("traceresponse"), 1u);
    EXPECT_EQ(trailers.count("videonsa-ask-id"), 1u);
  }
}

TEST(Ask, GrpcRetriesWhatFailedBeforeItsFirstMessage) {
  TestServer server;
  const auto stub = v1::VideoQaService::NewStub(RetryingChannel(server, 4));
  grpc::ClientContext context;
  v1::AskRequest request;
  *request.mutable_question() = TextQuestion("fail:UNAVAILABLE");
  v1::AskResponse response;
  EXPECT_EQ(stub->Ask(&context, request, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server.runtime().submitted(), 4);

  // A stream that has told of its acceptance is not retried.
  grpc::ClientContext stream_context;
  const auto reader =
      stub->AskStream(&stream_context, StreamRequest("fail:UNAVAILABLE", /*tokens=*/4));
  v1::AskStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server.runtime().submitted(), 5);
}

TEST(Ask, GrpcWaitsAsLongAsARefusalSays) {
  TestServer server;
  const auto stub = v1::VideoQaService::NewStub(RetryingChannel(server, 2));
  grpc::ClientContext context;
  const absl::Time begin = absl::Now();
  const auto reader = stub->AskStream(&context, StreamRequest("refuse", /*tokens=*/4));
  v1::AskStreamResponse event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(ReasonOf(reader->Finish()), "QUEUE_FULL");
  EXPECT_GE(absl::Now() - begin, absl::Seconds(1)) << "RetryInfo says 1 s";
}

TEST(Ask, LoadingServerSaysSo) {
  TestServer server(FakeOptions(), TestServer::Options(), /*serve=*/false);
  const grpc::Status status = server.Ask(TextQuestion("Hello?"), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "LOADING");
}

TEST(Ask, RepeatOfARequestIdGetsTheSameAnswerOnce) {
  TestServer server;
  v1::AskResult first, second;
  ASSERT_TRUE(server.Ask(TextQuestion("Same?"), &first, "id-1").ok());
  ASSERT_TRUE(server.Ask(TextQuestion("Same?"), &second, "id-1").ok());
  EXPECT_EQ(first.ask_id(), second.ask_id());
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
  EXPECT_EQ(server.runtime().submitted(), 1);
  const grpc::Status reused = server.Ask(TextQuestion("Other?"), nullptr, "id-1");
  EXPECT_EQ(reused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(reused), "REQUEST_ID_REUSED");
}

TEST(Ask, FailedAnswersAreNotReplayed) {
  TestServer server;
  EXPECT_FALSE(server.Ask(TextQuestion("fail:UNAVAILABLE"), nullptr, "id-1").ok());
  EXPECT_FALSE(server.Ask(TextQuestion("fail:UNAVAILABLE"), nullptr, "id-1").ok());
  EXPECT_EQ(server.runtime().submitted(), 2);
}

TEST(Ask, CallersOfOneRequestIdShareTheRun) {
  FakeOptions fake;
  fake.manual = true;
  TestServer server(fake);
  grpc::ClientContext first_context;
  grpc::Status first_status, second_status;
  v1::AskResult second_result;
  std::thread first([&] {
    v1::AskRequest request;
    request.set_request_id("id-1");
    *request.mutable_question() = TextQuestion("Shared?");
    v1::AskResponse response;
    first_status = server.questions().Ask(&first_context, request, &response);
  });
  while (server.runtime().open() == 0) std::this_thread::yield();
  std::thread second(
      [&] { second_status = server.Ask(TextQuestion("Shared?"), &second_result, "id-1"); });
  while (server.server().core().calls.open_questions() < 2) std::this_thread::yield();
  first_context.TryCancel();  // the second still wants the answer
  first.join();
  EXPECT_EQ(first_status.error_code(), grpc::StatusCode::CANCELLED);
  server.runtime().Step(16);
  second.join();
  EXPECT_TRUE(second_status.ok()) << second_status.error_message();
  EXPECT_EQ(second_result.text(), ExpectedAnswer("Shared?", 16));
  EXPECT_EQ(server.runtime().submitted(), 1);
}

TEST(Ask, LogprobsComeBack) {
  TestServer server;
  v1::Question question = TextQuestion("How sure?");
  question.mutable_generation()->set_top_logprobs(0);
  question.mutable_generation()->set_max_output_tokens(3);
  v1::AskResult result;
  ASSERT_TRUE(server.Ask(question, &result).ok());
  ASSERT_EQ(result.logprobs_size(), 3);
  EXPECT_EQ(result.logprobs(2).token_id(), 2);
}

TEST(Ask, MalformedBytesAreATypedError) {
  TestServer server;
  grpc::GenericStub stub(server.channel());
  // A text with the invalid UTF-8 byte 0xff, which the C++ classes would refuse to make.
  v1::AskRequest request;
  *request.mutable_question() = TextQuestion("aXb");
  std::string bytes = request.SerializeAsString();
  bytes[bytes.find('X')] = '\xff';
  for (const std::string& wire : {bytes, std::string("\x12\xff\xff", 3)}) {
    grpc::Slice slice(wire);
    grpc::ByteBuffer message(&slice, 1);
    grpc::ClientContext context;
    grpc::ByteBuffer reply;
    absl::Notification done;
    grpc::Status status;
    stub.UnaryCall(&context, "/videonsa.v1.VideoQaService/Ask", grpc::StubOptions(), &message,
                   &reply, [&](grpc::Status result) {
                     status = std::move(result);
                     done.Notify();
                   });
    done.WaitForNotification();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(ReasonOf(status), "MESSAGE_MALFORMED");
  }
}

TEST(Ask, OversizeMessageIsRefusedByTheTransport) {
  TestServer server;
  const grpc::Status status = server.Ask(TextQuestion(std::string(10 << 20, 'a')), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(server.Ask(TextQuestion("Still there?"), nullptr).ok());
}

TEST(Estimate, SaysCostAndWhyNot) {
  TestServer server;
  v1::EstimateRequest request;
  *request.mutable_question() = TextQuestion("too long");
  grpc::ClientContext context;
  v1::EstimateResponse response;
  ASSERT_TRUE(server.questions().Estimate(&context, request, &response).ok());
  EXPECT_FALSE(response.admissible());
  EXPECT_EQ(response.reason(), "PROMPT_TOO_LONG");
  EXPECT_EQ(response.kv_bytes(), response.kv_pages() * 65536);
}

}  // namespace
}  // namespace videonsa
