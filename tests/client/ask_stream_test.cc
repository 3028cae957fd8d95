#include "client/ask_stream.h"

#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "client/channel.h"
#include "client/error.h"
#include "tests/client/fake_server.h"

namespace videonsa::client {
namespace {

class AskStreamTest : public testing::Test {
 protected:
  absl::StatusOr<proto::AskResult> Ask(const AskCallbacks& callbacks, const CallOptions& options) {
    auto channel = OpenChannel({.address = server_.address()});
    auto stub = proto::VideoQaService::NewStub(*channel);
    proto::AskStreamRequest request;
    proto::Turn& turn = *request.mutable_question()->add_turns();
    turn.set_role(proto::Turn::ROLE_USER);
    turn.add_parts()->set_text("Why?");
    return ReadAskStream(*stub, request, callbacks, options);
  }

  FakeState state_;
  FakeServer server_{state_};
};

TEST_F(AskStreamTest, EventsComeInOrderAndTextIsPutTogether) {
  std::string order;
  AskCallbacks callbacks;
  callbacks.on_accepted = [&](const auto&) { order += 'a'; };
  callbacks.on_progress = [&](const auto&) { order += 'p'; };
  callbacks.on_prefill = [&](const auto&) { order += 'f'; };
  callbacks.on_delta = [&](const auto&) { order += 'd'; };
  CallOptions options;
  options.bearer_token = "secret";
  const auto result = Ask(callbacks, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(order, "apppfdd");
  EXPECT_EQ(result->text(), "You asked: Why?");
  EXPECT_EQ(result->usage().output_tokens(), 12);
  absl::MutexLock lock(&state_.mutex);
  EXPECT_EQ(state_.authorizations, std::vector<std::string>{"Bearer secret"});
}

TEST_F(AskStreamTest, MissingFinalEventIsDataLoss) {
  state_.answer = [](auto*, const auto&, grpc::ServerWriter<proto::AskStreamResponse>* writer) {
    proto::AskStreamResponse event;
    event.mutable_delta()->set_text("half an ans");
    writer->Write(event);
    return grpc::Status::OK;
  };
  const auto result = Ask({}, {});
  EXPECT_EQ(DetailsOf(result.status()).reason, "STREAM_INCOMPLETE");
}

TEST_F(AskStreamTest, EventAfterTheFinalOneIsRefused) {
  state_.answer = [](auto*, const auto&, grpc::ServerWriter<proto::AskStreamResponse>* writer) {
    proto::AskStreamResponse event;
    event.mutable_final();
    writer->Write(event);
    event.mutable_delta()->set_text("more");
    writer->Write(event);
    return grpc::Status::OK;
  };
  EXPECT_EQ(DetailsOf(Ask({}, {}).status()).reason, "STREAM_INVALID");
}

TEST_F(AskStreamTest, RefusalKeepsItsReason) {
  state_.answer = [](auto*, const auto&, auto*) {
    return TypedError(grpc::StatusCode::UNAVAILABLE, "QUEUE_FULL", "queue is full",
                      {{"waiting", "256"}}, 2);
  };
  const ErrorDetails details = DetailsOf(Ask({}, {}).status());
  EXPECT_EQ(details.reason, "QUEUE_FULL");
  EXPECT_EQ(details.retry_after, absl::Seconds(2));
  // A stream is never repeated behind the caller's back.
  absl::MutexLock lock(&state_.mutex);
  EXPECT_EQ(state_.asked.size(), 1u);
}

TEST_F(AskStreamTest, CancellationReachesTheServer) {
  absl::Notification seen;
  state_.answer = [&](grpc::ServerContext* context, const auto&,
                      grpc::ServerWriter<proto::AskStreamResponse>* writer) {
    proto::AskStreamResponse event;
    event.mutable_delta()->set_text("x");
    // Writes fail once the client has gone.
    while (!context->IsCancelled() && writer->Write(event)) {
    }
    seen.Notify();
    return grpc::Status::CANCELLED;
  };
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  AskCallbacks callbacks;
  callbacks.on_delta = [&](const auto&) { cancellation.Cancel(); };
  const auto result = Ask(callbacks, options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(seen.WaitForNotificationWithTimeout(absl::Seconds(20)));
  // Cancelled stays cancelled.
  EXPECT_EQ(Ask({}, options).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace videonsa::client
