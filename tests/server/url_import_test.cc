// Clips by url through the whole server: ImportClip, and urls as parts of questions.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/hash.h"
#include "tests/server/http_stub.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

ServerOptions OptionsFor(const HttpStub& stub) {
  ServerOptions options = TestServer::Options();
  options.urls.rules.hosts = {"localhost"};
  options.urls.rules.ports = {stub.port()};
  options.urls.rules.allow_http = true;
  options.urls.rules.networks = {IpNetwork::Parse("127.0.0.0/8").value(),
                                 IpNetwork::Parse("::1").value()};
  return options;
}

std::string Body() { return "good " + std::string(100'000, 'x'); }

void ServeBody(const std::string&, int connection) {
  HttpStub::Send(connection, HttpStub::Ok(Body()));
}

grpc::Status Import(TestServer& server, const v1::ImportClipRequest& request, v1::Clip* clip) {
  grpc::ClientContext context;
  v1::ImportClipResponse response;
  const grpc::Status status = server.clips().ImportClip(&context, request, &response);
  *clip = response.clip();
  return status;
}

v1::Clip AwaitEnd(TestServer& server, const std::string& name) {
  grpc::ClientContext context;
  v1::WatchClipRequest request;
  request.set_name(name);
  auto reader = server.clips().WatchClip(&context, request);
  v1::WatchClipResponse response;
  v1::Clip last;
  while (reader->Read(&response)) last = response.clip();
  reader->Finish();
  return last;
}

v1::Question UrlQuestion(const std::string& url) {
  v1::Question question;
  v1::Turn& turn = *question.add_turns();
  turn.set_role(v1::Turn::ROLE_USER);
  turn.add_parts()->mutable_clip()->set_url(url);
  turn.add_parts()->set_text("what happens?");
  return question;
}

int CountClips(TestServer& server) {
  grpc::ClientContext context;
  v1::ListClipsResponse response;
  EXPECT_TRUE(server.clips().ListClips(&context, v1::ListClipsRequest(), &response).ok());
  return response.clips_size();
}

bool NoClipsSoon(TestServer& server) {
  for (int i = 0; i < 200 && CountClips(server) > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
  return CountClips(server) == 0;
}

int Fetches(TestServer& server, const std::string& outcome) {
  const std::string text = server.metrics().Text();
  const std::string line =
      absl::StrCat("videonsa_fetch_requests_total{outcome=\"", outcome, "\"} ");
  const size_t at = text.find(line);
  return at == std::string::npos ? -1 : atoi(text.c_str() + at + line.size());
}

// The clip may say its end a little before it is counted.
bool FetchesSoon(TestServer& server, const std::string& outcome, int count) {
  for (int i = 0; i < 200 && Fetches(server, outcome) < count; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  return Fetches(server, outcome) == count;
}

TEST(UrlImport, FetchesAClip) {
  const HttpStub stub(ServeBody);
  TestServer server(FakeOptions(), OptionsFor(stub));
  v1::ImportClipRequest request;
  request.set_url(stub.Url("/a.mp4"));
  request.set_display_name("a");
  const Sha256Digest digest = Sha256Of(Body());
  request.set_sha256(std::string(digest.begin(), digest.end()));
  request.set_request_id("once");
  v1::Clip clip, again;
  const grpc::Status status = Import(server, request, &clip);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(clip.state(), v1::Clip::STATE_FETCHING);
  const v1::Clip end = AwaitEnd(server, clip.name());
  EXPECT_EQ(end.state(), v1::Clip::STATE_READY) << end.error_reason();
  EXPECT_EQ(end.size_bytes(), static_cast<int64_t>(Body().size()));
  EXPECT_EQ(end.sha256(), request.sha256());
  // A repeat is the same clip.
  ASSERT_TRUE(Import(server, request, &again).ok());
  EXPECT_EQ(again.name(), clip.name());
  EXPECT_EQ(stub.connections(), 1);
}

TEST(UrlImport, TakesAUrlThatDoesNotSayItsSize) {
  const HttpStub stub([](const std::string&, int connection) {
    HttpStub::Send(connection, "HTTP/1.1 200 OK\r\n\r\n" + Body());
  });
  TestServer server(FakeOptions(), OptionsFor(stub));
  v1::ImportClipRequest request;
  request.set_url(stub.Url("/"));
  v1::Clip clip;
  ASSERT_TRUE(Import(server, request, &clip).ok());
  const v1::Clip end = AwaitEnd(server, clip.name());
  EXPECT_EQ(end.state(), v1::Clip::STATE_READY) << end.error_reason();
  EXPECT_EQ(end.size_bytes(), static_cast<int64_t>(Body().size()));
}

TEST(UrlImport, FailuresAreInTheClip) {
  const HttpStub stub([](const std::string& head, int connection) {
    if (absl::StrContains(head, "/gone")) {
      return HttpStub::Send(connection, "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n");
    }
    if (absl::StrContains(head, "/empty")) return HttpStub::Send(connection, HttpStub::Ok(""));
    if (absl::StrContains(head, "/large")) {
      return HttpStub::Send(connection, HttpStub::Ok(std::string(300'000, 'x')));
    }
    if (absl::StrContains(head, "/away")) {
      return HttpStub::Send(connection, HttpStub::Redirect("http://169.254.169.254/"));
    }
    ServeBody(head, connection);
  });
  ServerOptions options = OptionsFor(stub);
  options.clips.max_clip_bytes = 200'000;
  TestServer server(FakeOptions(), options);
  struct Case {
    const char* path;
    const char* reason;
  };
  for (const Case& c : {Case{"/gone", "FETCH_FAILED"}, Case{"/empty", "FETCH_FAILED"},
                        Case{"/large", "MEDIA_TOO_LARGE"}, Case{"/away", "URL_NOT_ALLOWED"},
                        Case{"/digest", "CHECKSUM_MISMATCH"}}) {
    v1::ImportClipRequest request;
    request.set_url(stub.Url(c.path));
    if (absl::StrContains(c.path, "digest")) request.set_sha256(std::string(32, 'x'));
    v1::Clip clip;
    ASSERT_TRUE(Import(server, request, &clip).ok());
    const v1::Clip end = AwaitEnd(server, clip.name());
    EXPECT_EQ(end.state(), v1::Clip::STATE_FAILED) << c.path;
    EXPECT_EQ(end.error_reason(), c.reason) << c.path;
  }
  EXPECT_EQ(Fetches(server, "failed"), 2);
  EXPECT_EQ(Fetches(server, "too_large"), 1);
  EXPECT_EQ(Fetches(server, "redirect"), 1);
  EXPECT_TRUE(FetchesSoon(server, "digest", 1));
  EXPECT_EQ(Fetches(server, "ok"), 0);
  EXPECT_TRUE(absl::StrContains(server.metrics().Text(),
                                absl::StrCat("videonsa_fetch_bytes_total ", Body().size())))
      << "what came before the digest was found wrong counts";
}

TEST(UrlImport, IsOffOrRefusedAtTheDoor) {
  const HttpStub stub(ServeBody);
  v1::ImportClipRequest request;
  request.set_url(stub.Url("/"));
  v1::Clip clip;
  {
    TestServer server;
    EXPECT_EQ(Import(server, request, &clip).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  }
  TestServer server(FakeOptions(), OptionsFor(stub));
  for (const char* url : {"", "http://127.0.0.1/", "https://example.org/", "file:///etc/passwd"}) {
    request.set_url(url);
    EXPECT_EQ(ReasonOf(Import(server, request, &clip)), "URL_NOT_ALLOWED") << url;
    grpc::ClientContext context;
    v1::AskRequest ask;
    *ask.mutable_question() = UrlQuestion(url);
    v1::AskResponse answer;
    EXPECT_EQ(ReasonOf(server.questions().Ask(&context, ask, &answer)), "URL_NOT_ALLOWED") << url;
  }
  EXPECT_EQ(stub.connections(), 0);
  EXPECT_EQ(CountClips(server), 0);
  // Refusals at the door are what somebody who probes the network makes: they count as well.
  EXPECT_EQ(Fetches(server, "form"), 2);
  EXPECT_EQ(Fetches(server, "host"), 4);
  EXPECT_EQ(Fetches(server, "scheme"), 2);
}

TEST(UrlImport, ADeletedClipStopsItsFetch) {
  std::atomic<bool> broken{false};
  const HttpStub stub([&](const std::string&, int connection) {
    HttpStub::Send(connection, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx");
    const std::string block(1 << 16, 'x');
    for (int i = 0; i < 10'000; ++i) {
      if (send(connection, block.data(), block.size(), MSG_NOSIGNAL) < 0) {
        broken = true;
        return;
      }
    }
  });
  TestServer server(FakeOptions(), OptionsFor(stub));
  v1::ImportClipRequest request;
  request.set_url(stub.Url("/"));
  v1::Clip clip;
  ASSERT_TRUE(Import(server, request, &clip).ok());
  grpc::ClientContext context;
  v1::DeleteClipRequest remove;
  remove.set_name(clip.name());
  v1::DeleteClipResponse removed;
  ASSERT_TRUE(server.clips().DeleteClip(&context, remove, &removed).ok());
  for (int i = 0; i < 500 && !broken && stub.connections() > 0; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_TRUE(broken || stub.connections() == 0);
}

TEST(UrlQuestion, IsAnsweredAndLeavesNothing) {
  const HttpStub stub(ServeBody);
  TestServer server(FakeOptions(), OptionsFor(stub));
  {
    grpc::ClientContext context;
    v1::AskRequest ask;
    *ask.mutable_question() = UrlQuestion(stub.Url("/a.mp4"));
    v1::AskResponse answer;
    const grpc::Status status = server.questions().Ask(&context, ask, &answer);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_FALSE(answer.result().text().empty());
  }
  grpc::ClientContext context;
  v1::AskStreamRequest ask;
  *ask.mutable_question() = UrlQuestion(stub.Url("/b.mp4"));
  auto reader = server.questions().AskStream(&context, ask);
  v1::AskStreamResponse event;
  bool fetched = false, final = false;
  while (reader->Read(&event)) {
    fetched |= event.has_progress() && event.progress().stage() == "fetch";
    final |= event.has_final();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(fetched);
  EXPECT_TRUE(final);
  EXPECT_EQ(stub.connections(), 2);
  EXPECT_TRUE(NoClipsSoon(server));
}

TEST(UrlQuestion, WrongFieldsAreRefusedBeforeAnythingIsFetched) {
  const HttpStub stub(ServeBody);
  TestServer server(FakeOptions(), OptionsFor(stub));
  v1::AskRequest ask;
  *ask.mutable_question() = UrlQuestion(stub.Url("/"));
  ask.mutable_question()->mutable_turns(0)->set_role(v1::Turn::ROLE_UNSPECIFIED);
  grpc::ClientContext context;
  v1::AskResponse answer;
  EXPECT_EQ(server.questions().Ask(&context, ask, &answer).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(stub.connections(), 0);
}

TEST(UrlQuestion, FailsAsItsClipDoes) {
  const HttpStub stub([](const std::string& head, int connection) {
    HttpStub::Send(connection, absl::StrContains(head, "/bad")
                                   ? HttpStub::Ok("bad bytes")
                                   : "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
  });
  TestServer server(FakeOptions(), OptionsFor(stub));
  for (const auto& [path, reason] :
       {std::pair("/bad", "MEDIA_CORRUPT"), std::pair("/error", "FETCH_FAILED")}) {
    grpc::ClientContext context;
    v1::AskRequest ask;
    *ask.mutable_question() = UrlQuestion(stub.Url(path));
    v1::AskResponse answer;
    EXPECT_EQ(ReasonOf(server.questions().Ask(&context, ask, &answer)), reason) << path;
  }
  EXPECT_TRUE(NoClipsSoon(server));
}

TEST(UrlQuestion, LeavingCallersEndTheFetch) {
  std::atomic<bool> broken{false}, begun{false};
  const HttpStub stub([&](const std::string&, int connection) {
    HttpStub::Send(connection, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx");
    begun = true;
    const std::string block(1 << 16, 'x');
    for (int i = 0; i < 10'000 && !broken; ++i) {
      broken = send(connection, block.data(), block.size(), MSG_NOSIGNAL) < 0;
    }
  });
  TestServer server(FakeOptions(), OptionsFor(stub));
  for (const bool streamed : {false, true}) {
    broken = begun = false;
    grpc::ClientContext context;
    std::thread leaver([&] {
      while (!begun) absl::SleepFor(absl::Milliseconds(1));
      context.TryCancel();
    });
    if (streamed) {
      v1::AskStreamRequest ask;
      *ask.mutable_question() = UrlQuestion(stub.Url("/"));
      auto reader = server.questions().AskStream(&context, ask);
      v1::AskStreamResponse event;
      while (reader->Read(&event)) {
      }
      EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
    } else {
      v1::AskRequest ask;
      *ask.mutable_question() = UrlQuestion(stub.Url("/"));
      v1::AskResponse answer;
      EXPECT_EQ(server.questions().Ask(&context, ask, &answer).error_code(),
                grpc::StatusCode::CANCELLED);
    }
    leaver.join();
    for (int i = 0; i < 1000 && !broken; ++i) absl::SleepFor(absl::Milliseconds(10));
    EXPECT_TRUE(broken) << streamed;
  }
  EXPECT_TRUE(NoClipsSoon(server));
}

}  // namespace
}  // namespace videonsa
