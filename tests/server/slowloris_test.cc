// Hundreds of connections that send nothing or half of something, and honest clients beside them.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

constexpr int kConnections = 400;
constexpr int kQuestions = 60;
constexpr absl::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// An empty SETTINGS frame, and the head of a HEADERS frame of 100 bytes that never come.
constexpr absl::string_view kSettings("\0\0\0\4\0\0\0\0\0", 9);
constexpr absl::string_view kHalfHeaders("\0\0\x64\1\4\0\0\0\1", 9);

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

void Say(int fd, absl::string_view bytes) {
  EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

// Whether the other side closes `fd` before `limit`; reads away what it says until then.
bool ClosedBy(int fd, absl::Time limit) {
  while (true) {
    pollfd waiting{fd, POLLIN, 0};
    const int64_t left = absl::ToInt64Milliseconds(limit - absl::Now());
    if (left <= 0 || poll(&waiting, 1, static_cast<int>(left)) <= 0) return false;
    std::array<char, 4096> bytes;
    if (recv(fd, bytes.data(), bytes.size(), 0) <= 0) return true;
  }
}

// Seconds that each of kQuestions took, over a new connection each, sorted.
std::vector<double> AskHonestly(TestServer& server) {
  std::vector<double> seconds;
  for (int i = 0; i < kQuestions; ++i) {
    const absl::Time begin = absl::Now();
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::AskRequest request;
    *request.mutable_question() = TextQuestion("Honest?");
    v1::AskResponse response;
    const grpc::Status status =
        v1::VideoQaService::NewStub(server.Connect())->Ask(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    seconds.push_back(absl::ToDoubleSeconds(absl::Now() - begin));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

TEST(Slowloris, CostsHonestClientsNothingAndIsCutOff) {
  ServerOptions options = TestServer::Options();
  options.connection.handshake = absl::Seconds(3);
  options.connection.idle = absl::Seconds(3);
  TestServer server(FakeOptions(), options);
  const std::vector<double> alone = AskHonestly(server);
  std::vector<int> attackers;
  for (int i = 0; i < kConnections; ++i) {
    const int fd = Connect(server.server().port());
    if (i % 4 >= 1) Say(fd, kPreface.substr(0, i % 4 == 1 ? 10 : kPreface.size()));
    if (i % 4 == 3) {
      Say(fd, kSettings);
      Say(fd, kHalfHeaders);
    }
    attackers.push_back(fd);
  }
  const std::vector<double> beside = AskHonestly(server);
  const size_t median = kQuestions / 2;
  printf(
      "honest question, median / worst: alone %.2f / %.2f ms, beside %d attackers %.2f / %.2f ms\n",
      1e3 * alone[median], 1e3 * alone.back(), kConnections, 1e3 * beside[median],
      1e3 * beside.back());
  EXPECT_LT(beside[median], 2 * alone[median] + 0.01);
  int cut = 0;
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  for (const int fd : attackers) {
    cut += ClosedBy(fd, limit);
    close(fd);
  }
  EXPECT_EQ(cut, kConnections) << "the others may hold their descriptors for ever";
  EXPECT_TRUE(server.Ask(TextQuestion("Still there?"), nullptr).ok());
}

TEST(SlowSender, AnUploadWithoutChunksEnds) {
  ServerOptions options = TestServer::Options();
  options.upload_idle = absl::Seconds(1);
  TestServer server(FakeOptions(), options);
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<v1::UploadClipResponse> responses(32);
  std::vector<std::unique_ptr<grpc::ClientWriter<v1::UploadClipRequest>>> writers;
  for (v1::UploadClipResponse& response : responses) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    writers.push_back(server.clips().UploadClip(contexts.back().get(), &response));
  }
  EXPECT_TRUE(server.Ask(TextQuestion("Honest?"), nullptr).ok());
  for (const auto& writer : writers) {
    const grpc::Status status = writer->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(ReasonOf(status), "UPLOAD_TOO_SLOW");
  }
}

}  // namespace
}  // namespace videonsa
