// Time that videonsa-openai adds to the first token: the same question is asked by gRPC and through
// the front in turns, the inference server answering at once. Front and server run in processes of
// their own; the fake server needs no model, so that nothing else is measured.
//
// Usage: openai_overhead_bench [ROUNDS [INLINE_KB]]. Exit code 1 over the limit.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/openai/front.h"
#include "grpcpp/create_channel.h"
#include "tests/client/fake_server.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa::openai {
namespace {

constexpr double kLimitMs = 1.0;

[[noreturn]] void Die(const char* what) {
  fprintf(stderr, "openai_overhead_bench: %s\n", what);
  exit(2);
}

// Runs `serve` in a child process; it writes its port to a pipe and lives until the pipe's other
// end closes.
template <typename Serve>
int Child(Serve serve, std::vector<pid_t>& children) {
  int out[2];
  int life[2];
  if (pipe(out) != 0 || pipe(life) != 0) Die("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    close(life[1]);
    serve([&](int port) {
      if (write(out[1], &port, sizeof(port)) != sizeof(port)) _exit(1);
      char byte;
      (void)!read(life[0], &byte, 1);
    });
    _exit(0);
  }
  close(life[0]);
  children.push_back(child);
  int port = 0;
  if (read(out[0], &port, sizeof(port)) != sizeof(port)) Die("a child did not start");
  return port;
}

grpc::Status AnswerAtOnce(grpc::ServerWriter<v1::AskStreamResponse>* writer) {
  v1::AskStreamResponse event;
  event.mutable_accepted()->set_ask_id("ask-1");
  writer->Write(event);
  event.mutable_delta()->set_text("token");
  writer->Write(event);
  *event.mutable_final() = client::SampleResult();
  writer->Write(event);
  return grpc::Status::OK;
}

double MsSince(absl::Time begin) { return absl::ToDoubleMilliseconds(absl::Now() - begin); }

double AskByGrpc(v1::VideoQaService::Stub& stub, const v1::AskStreamRequest& request) {
  const absl::Time begin = absl::Now();
  grpc::ClientContext context;
  const auto reader = stub.AskStream(&context, request);
  v1::AskStreamResponse event;
  double first = -1;
  while (reader->Read(&event)) {
    if (event.has_delta()) first = MsSince(begin);
  }
  if (!reader->Finish().ok() || first < 0) Die("gRPC gave no answer");
  return first;
}

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Die("no front");
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

// Over a connection that stays open, as HTTP clients keep theirs.
double AskByHttp(int fd, const std::string& request) {
  const absl::Time begin = absl::Now();
  for (size_t sent = 0; sent < request.size();) {
    const ssize_t got = send(fd, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (got <= 0) Die("the front does not take the request");
    sent += static_cast<size_t>(got);
  }
  std::string answer;
  char buffer[4096];
  double first = -1;
  // The chunk that ends the body is "0\r\n\r\n".
  while (answer.find("\r\n0\r\n\r\n") == std::string::npos) {
    const ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
    if (got <= 0) Die("the front closed the connection");
    answer.append(buffer, static_cast<size_t>(got));
    if (first < 0 && answer.find("\"token\"") != std::string::npos) first = MsSince(begin);
  }
  if (first < 0) Die("the front gave no answer");
  return first;
}

double Percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(p * static_cast<double>(values.size() - 1))];
}

void Print(const char* what, const std::vector<double>& values) {
  printf("  %-24s median %.3f ms, p95 %.3f ms, p99 %.3f ms\n", what, Percentile(values, 0.5),
         Percentile(values, 0.95), Percentile(values, 0.99));
}

// What one way and the other took.
struct Times {
  std::vector<double> grpc, http;
};

Times Measure(int server_port, int front_port, int rounds, const std::string& media) {
  const auto stub = v1::VideoQaService::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", server_port), grpc::InsecureChannelCredentials()));
  v1::AskStreamRequest question;
  v1::Turn& turn = *question.mutable_question()->add_turns();
  turn.set_role(v1::Turn::ROLE_USER);
  std::string part;
  if (!media.empty()) {
    turn.add_parts()->mutable_clip()->set_inline_data(media);
    part = absl::StrCat(R"({"type":"video_url","video_url":{"url":"data:video/mp4;base64,)",
                        absl::Base64Escape(media), R"("}},)");
  }
  turn.add_parts()->set_text("What happens?");
  const std::string body =
      absl::StrCat(R"({"model":"fake","stream":true,"messages":[{"role":"user","content":[)", part,
                   R"({"type":"text","text":"What happens?"}]}]})");
  const std::string request = absl::StrCat(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: "
      "application/json\r\nContent-Length: ",
      body.size(), "\r\n\r\n", body);
  const int fd = Connect(front_port);
  Times times;
  constexpr int kWarm = 20;
  for (int round = 0; round < rounds + kWarm; ++round) {
    const double grpc_ms = AskByGrpc(*stub, question);
    const double http_ms = AskByHttp(fd, request);
    if (round < kWarm) continue;
    times.grpc.push_back(grpc_ms);
    times.http.push_back(http_ms);
  }
  close(fd);
  return times;
}

int Main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 1000;
  const size_t inline_kb = argc > 2 ? static_cast<size_t>(atoi(argv[2])) : 0;
  std::vector<pid_t> children;
  const int server_port = Child(
      [](const auto& ready) {
        client::FakeState state;
        state.answer = [](auto*, const auto&, auto* writer) { return AnswerAtOnce(writer); };
        const client::FakeServer server(state);
        ready(server.port());
      },
      children);
  const int front_port = Child(
      [&](const auto& ready) {
        FrontOptions options;
        options.listen = "127.0.0.1:0";
        options.server.address = absl::StrCat("127.0.0.1:", server_port);
        const auto front = Front::Start(options);
        if (!front.ok()) _exit(1);
        ready((*front)->port());
      },
      children);
  const Times times = Measure(server_port, front_port, rounds, std::string(inline_kb << 10, 'v'));
  const double median = Percentile(times.http, 0.5) - Percentile(times.grpc, 0.5);
  const double tail = Percentile(times.http, 0.95) - Percentile(times.grpc, 0.95);
  printf("time to the first token through videonsa-openai, %d questions, %zu KiB inline\n", rounds,
         inline_kb);
  Print("gRPC", times.grpc);
  Print("HTTP through the front", times.http);
  printf("  added: median %.3f ms, p95 %.3f ms (limit %.0f ms)\n", median, tail, kLimitMs);
  for (const pid_t child : children) kill(child, SIGKILL);
  return median <= kLimitMs && tail <= kLimitMs ? 0 : 1;
}

}  // namespace
}  // namespace videonsa::openai

int main(int argc, char** argv) { return videonsa::openai::Main(argc, argv); }
