// What the front does to callers that are too many, too slow, too large, or lie about lengths.
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "tests/client/openai/front_fixture.h"

namespace videonsa::openai {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

FrontOptions Small() {
  FrontOptions options;
  options.connection.body_bytes = 4096;
  options.connection.head_bytes = 4096;
  options.connection.head_time = absl::Milliseconds(200);
  options.connection.body_time = absl::Milliseconds(200);
  options.connection.idle = absl::Milliseconds(200);
  return options;
}

TEST_F(FrontTest, LargeBodiesAreRefusedAndTheConnectionEnds) {
  Begin(Small());
  const auto response = Post(Chat(std::string(5000, 'x')));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 413);
  EXPECT_THAT(response->body, HasSubstr("BODY_TOO_LARGE"));
  EXPECT_EQ(response->get_header_value("Connection"), "close");
  RawConnection chunked(front_->port());
  chunked.Send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 10; ++i) chunked.Send("400\r\n" + std::string(1024, 'x') + "\r\n");
  EXPECT_THAT(chunked.ReadAll(), HasSubstr("413"));
}

TEST_F(FrontTest, SlowCallersLoseTheirConnection) {
  Begin(Small());
  RawConnection silent(front_->port());
  RawConnection half_head(front_->port());
  half_head.Send("POST /v1/chat/completions HTTP/1.1\r\nHost:");
  RawConnection half_body(front_->port());
  half_body.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_EQ(silent.ReadAll(), "");
  EXPECT_THAT(half_head.ReadAll(), Not(HasSubstr("200 OK")));
  EXPECT_THAT(half_body.ReadAll(), testing::AnyOf("", HasSubstr("HTTP/1.1 4")));
}

TEST_F(FrontTest, EndlessHeadersEnd) {
  Begin(Small());
  RawConnection caller(front_->port());
  caller.Send("GET /livez HTTP/1.1\r\n");
  for (int i = 0; i < 200; ++i)
    caller.Send(absl::StrCat("X-", i, ": ", std::string(100, 'y'), "\r\n"));
  EXPECT_THAT(caller.ReadAll(), Not(HasSubstr("200 OK")));
}

TEST_F(FrontTest, LengthsToldTwiceCannotHideARequest) {
  Begin();
  const std::string hidden = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
  const std::string heads[] = {
      absl::StrCat("GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: ", hidden.size()),
      absl::StrCat(
          "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: ",
          hidden.size()),
      absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
                   "Content-Length: ",
                   hidden.size()),
      "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
      "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5",
      "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999"};
  for (const std::string& head : heads) {
    RawConnection caller(front_->port());
    caller.Send(head + "\r\n\r\n" + hidden);
    const std::string answer = caller.ReadAll();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400")) << head;
    EXPECT_THAT(answer, HasSubstr("BAD_FRAMING")) << head;
    EXPECT_EQ(answer.find("HTTP/1.1", 1), std::string::npos) << head << "\n" << answer;
  }
}

TEST_F(FrontTest, CompressedBodiesAreNotTaken) {
  Begin();
  const auto response = Post(Chat("x"), {{"Content-Encoding", "gzip"}});
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 415);
}

TEST_F(FrontTest, ConnectionsBeyondTheLimitAreTurnedAway) {
  FrontOptions options;
  options.max_connections = 2;
  Begin(options);
  RawConnection first(front_->port());
  RawConnection second(front_->port());
  const std::string ask = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
  for (RawConnection* one : {&first, &second}) {
    one->Send(ask);
    EXPECT_THAT(one->ReadUntil("ok\n"), HasSubstr("200 OK"));
  }
  RawConnection third(front_->port());
  EXPECT_THAT(third.ReadAll(), testing::AllOf(HasSubstr("503"), HasSubstr("FRONT_FULL")));
  first.Send(ask);
  EXPECT_THAT(first.ReadUntil("ok\n"), HasSubstr("200 OK"));
}

TEST_F(FrontTest, QuestionsBeyondTheLimitAreTurnedAway) {
  absl::Notification asked, go;
  state_.answer = [&](auto*, const auto&, auto* writer) {
    asked.Notify();
    go.WaitForNotification();
    client::proto::AskStreamResponse event;
    *event.mutable_final() = client::SampleResult();
    writer->Write(event);
    return grpc::Status::OK;
  };
  FrontOptions options;
  options.max_requests = 1;
  Begin(options);
  std::thread caller([&] { EXPECT_EQ(Post(Chat("x"))->status, 200); });
  asked.WaitForNotification();
  httplib::Client other("127.0.0.1", front_->port());
  const auto refused = other.Post("/v1/chat/completions", Chat("y").dump(), "application/json");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 503);
  EXPECT_THAT(refused->body, HasSubstr("FRONT_FULL"));
  go.Notify();
  caller.join();
}

TEST_F(FrontTest, BodiesTogetherHaveALimit) {
  FrontOptions options;
  options.max_bodies_bytes = 1000;
  Begin(options);
  const auto response = Post(Chat(std::string(2000, 'x')));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 503);
  EXPECT_EQ(Post(Chat("small"))->status, 200);
}

TEST(FrontStartTest, ServerThatIsNotThereIsA503) {
  FrontOptions options;
  options.listen = "127.0.0.1:0";
  options.server.address = "127.0.0.1:1";
  auto front = Front::Start(options);
  ASSERT_TRUE(front.ok()) << front.status();
  httplib::Client http("127.0.0.1", (*front)->port());
  http.set_read_timeout(60);
  EXPECT_EQ(http.Get("/healthz")->status, 503);
  EXPECT_EQ(http.Get("/livez")->status, 200);
  const auto models = http.Get("/v1/models");
  ASSERT_TRUE(models);
  EXPECT_GE(models->status, 503);
  EXPECT_THAT(models->body, Not(HasSubstr("127.0.0.1")));
}

TEST(FrontStartTest, PortInUseIsSaid) {
  client::FakeState state;
  const client::FakeServer taken(state);
  FrontOptions options;
  options.listen = taken.address();
  const auto front = Front::Start(options);
  ASSERT_FALSE(front.ok());
  EXPECT_THAT(std::string(front.status().message()), HasSubstr(taken.address()));
  options.listen = "nonsense";
  EXPECT_FALSE(Front::Start(options).ok());
}

}  // namespace
}  // namespace videonsa::openai
