#pragma once

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/support/server_process.h"
#include "videonsa/v1/clip.grpc.pb.h"
#include "videonsa/v1/server.grpc.pb.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa::testing {

namespace pb = ::videonsa::v1;

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

/// Path of a clip or picture that the tests bring along.
inline std::string MediaPath(const std::string& name) {
  return std::string(VIDEONSA_TEST_DATA) + "/e2e/" + name;
}

/// A question about the bytes of a clip; greedy, few tokens.
inline pb::Question ClipQuestion(const std::string& clip_bytes, const std::string& text,
                                 int max_tokens = 8) {
  pb::Question question;
  pb::Turn* turn = question.add_turns();
  turn->set_role(pb::Turn::ROLE_USER);
  if (!clip_bytes.empty()) {
    turn->add_parts()->mutable_clip()->set_inline_data(clip_bytes);
    turn->mutable_parts(0)->mutable_clip()->mutable_sampling()->set_max_pixels_per_frame(50176);
    turn->mutable_parts(0)->mutable_clip()->mutable_sampling()->set_min_pixels_per_frame(3136);
  }
  turn->add_parts()->set_text(text);
  question.mutable_generation()->set_max_output_tokens(max_tokens);
  question.mutable_generation()->set_temperature(0);
  question.mutable_generation()->set_repetition_penalty(1);
  return question;
}

/// One real server with the bundled model for all tests of a program.
class ServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    char dir[] = "/tmp/videonsa-e2e-XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    scratch_ = dir;
    std::filesystem::create_directory(scratch_ + "/clips");
    StartServer();
  }
  static void TearDownTestSuite() {
    server_.reset();
    std::filesystem::remove_all(scratch_);
  }
  static void StartServer(std::vector<std::string> extra_flags = {}) {
    server_.reset();  // the clip folder is one process's
    const absl::Status started =
        ServerProcess::Start({.binary = VIDEONSA_BIN_DIR "/videonsa-server",
                              .model_dir = model_dir_,
                              .clip_dir = scratch_ + "/clips",
                              .extra_flags = std::move(extra_flags)},
                             server_);
    ASSERT_TRUE(started.ok()) << started << ReadFile(scratch_ + "/server.log");
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ =
        grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), args);
    qa_ = pb::VideoQaService::NewStub(channel_);
    clips_ = pb::ClipService::NewStub(channel_);
    status_ = pb::ServerService::NewStub(channel_);
  }

  static grpc::Status Ask(const pb::Question& question, pb::AskResult* result,
                          int timeout_seconds = 120) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(timeout_seconds));
    pb::AskRequest request;
    *request.mutable_question() = question;
    pb::AskResponse response;
    const grpc::Status status = qa_->Ask(&context, request, &response);
    *result = response.result();
    return status;
  }

  /// The body of GET /metrics.
  static std::string Scrape() {
    const std::string& address = server_->metrics_address();
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in peer{};
    peer.sin_family = AF_INET;
    peer.sin_port = htons(std::stoi(address.substr(address.rfind(':') + 1)));
    inet_pton(AF_INET, "127.0.0.1", &peer.sin_addr);
    std::string body;
    if (connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) == 0) {
      const std::string request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
      EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
      char buffer[65536];
      for (ssize_t got; (got = read(fd, buffer, sizeof(buffer))) > 0;) body.append(buffer, got);
    }
    close(fd);
    return body;
  }

  static inline std::string model_dir_;  // empty: the bundled model
  static inline std::string scratch_;
  static inline std::unique_ptr<ServerProcess> server_;
  static inline std::shared_ptr<grpc::Channel> channel_;
  static inline std::unique_ptr<pb::VideoQaService::Stub> qa_;
  static inline std::unique_ptr<pb::ClipService::Stub> clips_;
  static inline std::unique_ptr<pb::ServerService::Stub> status_;
};

}  // namespace videonsa::testing
