// Questions through the front: translation, streams, errors, uploads, the caller's token.
#include "tests/client/openai/front_fixture.h"

#include "absl/strings/escaping.h"
#include "absl/synchronization/notification.h"

namespace videonsa::openai {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST_F(FrontTest, AnswersAtOnce) {
  Begin();
  const auto response =
      Post(Chat("What is it?"), {{"Authorization", "bearer sk-1"}, {"x-request-id", "abc"}});
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200) << response->body;
  const json body = json::parse(response->body);
  EXPECT_EQ(body["id"], "chatcmpl-ask-1");
  EXPECT_EQ(body["choices"][0]["message"]["content"], "You asked: What is it?");
  EXPECT_EQ(body["usage"]["completion_tokens"], 12);
  absl::MutexLock lock(&state_.mutex);
  EXPECT_THAT(state_.authorizations, testing::ElementsAre("Bearer sk-1"));
}

TEST_F(FrontTest, StreamsAndKeepsTheConnection) {
  Begin();
  http_->set_keep_alive(true);
  json chat = Chat("What is it?", true);
  chat["stream_options"] = {{"include_usage", true}};
  for (int round = 0; round < 3; ++round) {
    const auto response = Post(chat);
    ASSERT_TRUE(response);
    ASSERT_EQ(response->status, 200) << response->body;
    EXPECT_EQ(response->get_header_value("Content-Type"), "text/event-stream");
    const std::vector<json> events = EventsOf(response->body);
    EXPECT_EQ(TextOf(events), "You asked: What is it?");
    ASSERT_GE(events.size(), 5U);
    EXPECT_EQ(events[0]["choices"][0]["delta"]["role"], "assistant");
    EXPECT_EQ(events[events.size() - 3]["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(events[events.size() - 2]["usage"]["total_tokens"], 4148);
    EXPECT_EQ(events.back(), "[DONE]");
  }
}

TEST_F(FrontTest, RefusalsOfTheServerBecomeHttpErrors) {
  state_.answer = [](auto*, const auto&, auto*) {
    return client::TypedError(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED",
                              "tenant rate: 11 a minute, limit 10", {}, 1.5);
  };
  Begin();
  for (const bool stream : {false, true}) {
    const auto response = Post(Chat("x", stream));
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 429);
    EXPECT_EQ(response->get_header_value("Retry-After"), "2");
    EXPECT_EQ(response->get_header_value("Content-Type"), "application/json");
    const json error = json::parse(response->body)["error"];
    EXPECT_EQ(error["code"], "QUOTA_EXCEEDED");
    EXPECT_EQ(error["type"], "rate_limit_error");
    EXPECT_EQ(error["message"], "tenant rate: 11 a minute, limit 10");
  }
}

TEST_F(FrontTest, FailureAfterTheFirstTextIsAnEvent) {
  state_.answer = [](auto*, const auto&, auto* writer) {
    client::proto::AskStreamResponse event;
    event.mutable_delta()->set_text("half");
    writer->Write(event);
    return client::TypedError(grpc::StatusCode::UNAVAILABLE, "DEVICE_LOST", "device lost");
  };
  Begin();
  const auto response = Post(Chat("x", true));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  const std::vector<json> events = EventsOf(response->body);
  EXPECT_EQ(events.back()["error"]["code"], "DEVICE_LOST");
  const auto whole = Post(Chat("x"));
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->status, 503);
}

TEST_F(FrontTest, StreamWithoutFinalEventIsAnError) {
  state_.answer = [](auto*, const auto&, auto*) { return grpc::Status::OK; };
  Begin();
  const auto response = Post(Chat("x", true));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 500);
  EXPECT_THAT(response->body, HasSubstr("STREAM_INCOMPLETE"));
}

TEST_F(FrontTest, SmallMediaStayInlineLargeOnesAreUploaded) {
  Begin();
  const std::string small(1000, 'v');
  const std::string large(1'500'000, 'w');  // the fake takes 1 MiB inline
  json chat = Chat("");
  json& content = chat["messages"][0]["content"] = json::array();
  for (const std::string& bytes : {small, large}) {
    content.push_back(
        {{"type", "video_url"},
         {"video_url", {{"url", "data:video/mp4;base64," + absl::Base64Escape(bytes)}}}});
  }
  for (int round = 0; round < 2; ++round) {
    const auto response = Post(chat);
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 200) << response->body;
  }
  absl::MutexLock lock(&state_.mutex);
  ASSERT_EQ(state_.asked.size(), 2U);
  for (const auto& asked : state_.asked) {
    const client::proto::Turn& turn = asked.question().turns(0);
    EXPECT_EQ(turn.parts(0).clip().inline_data(), small);
    EXPECT_EQ(turn.parts(1).clip().clip(), "clips/upload-1");
  }
  EXPECT_EQ(state_.uploads.at("upload-1").bytes, large);
  EXPECT_EQ(state_.uploads.size(), 1U);
}

TEST_F(FrontTest, MediaThatCannotBeUsedIsTheCallersError) {
  state_.probe_fails = true;
  Begin();
  json chat = Chat("");
  const std::string url =
      "data:video/mp4;base64," + absl::Base64Escape(std::string(1'500'000, 'w'));
  chat["messages"][0]["content"] = {{{"type", "video_url"}, {"video_url", {{"url", url}}}}};
  const auto response = Post(chat);
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 400);
  EXPECT_EQ(json::parse(response->body)["error"]["code"], "MEDIA_CORRUPT");
}

TEST_F(FrontTest, UnknownModelsPathsAndMethodsAreNamed) {
  Begin();
  json chat = Chat("x");
  chat["model"] = "gpt-9";
  auto response = Post(chat);
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 404);
  EXPECT_EQ(json::parse(response->body)["error"]["code"], "MODEL_NOT_FOUND");
  response = http_->Get("/v1/embeddings");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 404);
  EXPECT_EQ(json::parse(response->body)["error"]["code"], "PATH_UNKNOWN");
  response = http_->Delete("/v1/models");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 405);
}

TEST_F(FrontTest, ListsTheModelAndItsHealth) {
  Begin();
  auto response = http_->Get("/v1/models");
  ASSERT_TRUE(response);
  EXPECT_EQ(json::parse(response->body)["data"][0]["id"], "fake");
  response = http_->Get("/v1/models/fake");
  ASSERT_TRUE(response);
  EXPECT_EQ(json::parse(response->body)["id"], "fake");
  EXPECT_EQ(http_->Get("/v1/models/other")->status, 404);
  EXPECT_EQ(http_->Get("/healthz")->status, 200);
  EXPECT_EQ(http_->Get("/livez")->status, 200);
  response = http_->Get("/metrics");
  ASSERT_TRUE(response);
  EXPECT_THAT(response->body, HasSubstr("videonsa_openai_requests_total{code=\"200\"} 4\n"));
  EXPECT_THAT(response->body, HasSubstr("videonsa_openai_requests_total{code=\"404\"} 1\n"));
}

TEST_F(FrontTest, TokensThatNoTokenIsAreRefusedHere) {
  Begin();
  for (const std::string value : {"Basic YTpi", "Bearer a\x01", "Bearer \xC3\xA9"}) {
    const auto response = Post(Chat("x"), {{"Authorization", value}});
    ASSERT_TRUE(response) << value;
    EXPECT_EQ(response->status, 401) << value;
  }
  EXPECT_EQ(http_->Get("/v1/models", {{"Authorization", "Basic YTpi"}})->status, 401);
}

TEST_F(FrontTest, RefusalOfATokenIs401) {
  state_.refuse = client::TypedError(grpc::StatusCode::UNAUTHENTICATED, "TOKEN_UNKNOWN", "no");
  Begin();
  for (const auto& response : {Post(Chat("x")), http_->Get("/v1/models")}) {
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 401);
    EXPECT_EQ(response->get_header_value("WWW-Authenticate"), "Bearer");
  }
}

// Waits until the caller has gone, then says so.
struct WaitForCancel {
  absl::Notification asked, cancelled;
  grpc::Status operator()(grpc::ServerContext* context,
                          grpc::ServerWriter<client::proto::AskStreamResponse>* writer,
                          bool speak) {
    client::proto::AskStreamResponse event;
    event.mutable_delta()->set_text("a");
    if (speak) writer->Write(event);
    asked.Notify();
    // A stream whose reader has gone fails to write.
    event.Clear();
    event.mutable_progress()->set_stage("prefill");
    const absl::Time end = absl::Now() + absl::Seconds(30);
    while (!context->IsCancelled() && absl::Now() < end) absl::SleepFor(absl::Milliseconds(1));
    if (context->IsCancelled()) cancelled.Notify();
    return grpc::Status::CANCELLED;
  }
};

TEST_F(FrontTest, CallerThatLeavesCancelsTheQuestion) {
  for (const bool stream : {false, true}) {
    WaitForCancel waiter;
    state_.answer = [&](auto* context, const auto&, auto* writer) {
      return waiter(context, writer, stream);
    };
    Begin();
    RawConnection caller(front_->port());
    const std::string body = Chat("x", stream).dump();
    caller.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
    waiter.asked.WaitForNotification();
    if (stream) {
      EXPECT_THAT(caller.ReadUntil("\"a\""), HasSubstr("200 OK"));
    }
    caller.Close();
    EXPECT_TRUE(waiter.cancelled.WaitForNotificationWithTimeout(absl::Seconds(20))) << stream;
    front_.reset();
  }
}

TEST_F(FrontTest, LongSilenceIsFilledWithComments) {
  absl::Notification go;
  state_.answer = [&](auto*, const auto&, auto* writer) {
    go.WaitForNotification();
    client::proto::AskStreamResponse event;
    event.mutable_delta()->set_text("late");
    writer->Write(event);
    *event.mutable_final() = client::SampleResult();
    writer->Write(event);
    return grpc::Status::OK;
  };
  FrontOptions options;
  options.quiet = absl::Milliseconds(50);
  Begin(options);
  RawConnection caller(front_->port());
  const std::string body = Chat("x", true).dump();
  caller.Send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_THAT(caller.ReadUntil(": still working"), HasSubstr("200 OK"));
  go.Notify();
  EXPECT_THAT(caller.ReadAll(), testing::AllOf(HasSubstr("late"), HasSubstr("[DONE]")));
}

TEST_F(FrontTest, EndCutsWhatTheDrainDidNotWaitFor) {
  WaitForCancel waiter;
  state_.answer = [&](auto* context, const auto&, auto* writer) {
    return waiter(context, writer, false);
  };
  FrontOptions options;
  options.drain_time = absl::ZeroDuration();
  Begin(options);
  std::thread caller([&] {
    const auto response = Post(Chat("x"));
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 503);
    EXPECT_THAT(response->body, HasSubstr("DRAINING"));
  });
  waiter.asked.WaitForNotification();
  EXPECT_EQ(front_->Drain(), 1);
  front_.reset();
  caller.join();
  EXPECT_TRUE(waiter.cancelled.WaitForNotificationWithTimeout(absl::Seconds(20)));
}

TEST_F(FrontTest, DrainLetsOpenAnswersEndAndRefusesNewOnes) {
  absl::Notification asked, go;
  state_.answer = [&](auto*, const auto&, auto* writer) {
    asked.Notify();
    go.WaitForNotification();
    client::proto::AskStreamResponse event;
    event.mutable_delta()->set_text("kept");
    writer->Write(event);
    *event.mutable_final() = client::SampleResult();
    writer->Write(event);
    return grpc::Status::OK;
  };
  Begin();
  std::thread caller([&] {
    const auto response = Post(Chat("x"));
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 200);
    EXPECT_THAT(response->body, HasSubstr("kept"));
  });
  asked.WaitForNotification();
  int cut = -1;
  std::thread drain([&] { cut = front_->Drain(); });
  httplib::Client other("127.0.0.1", front_->port());
  while (other.Get("/healthz")->status == 200) {
  }
  EXPECT_EQ(other.Get("/livez")->status, 200);
  const auto refused = other.Post("/v1/chat/completions", Chat("y").dump(), "application/json");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 503);
  EXPECT_THAT(refused->body, HasSubstr("DRAINING"));
  go.Notify();
  caller.join();
  drain.join();
  EXPECT_EQ(cut, 0);
}

}  // namespace
}  // namespace videonsa::openai
