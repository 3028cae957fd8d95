#pragma once

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/openai/front.h"
#include "nlohmann/json.hpp"
#include "tests/client/fake_server.h"

namespace videonsa::openai {

/// A front before a fake inference server, both in this process.
class FrontTest : public testing::Test {
 protected:
  void Begin(FrontOptions options = {}) {
    options.listen = "127.0.0.1:0";
    options.server.address = server_.address();
    auto front = Front::Start(options);
    ASSERT_TRUE(front.ok()) << front.status();
    front_ = *std::move(front);
    http_ = std::make_unique<httplib::Client>("127.0.0.1", front_->port());
    http_->set_read_timeout(60);
  }

  httplib::Result Post(const nlohmann::json& body, const httplib::Headers& headers = {}) {
    return http_->Post("/v1/chat/completions", headers, body.dump(), "application/json");
  }

  static nlohmann::json Chat(const std::string& text, bool stream = false) {
    return {{"model", "fake"},
            {"stream", stream},
            {"messages", {{{"role", "user"}, {"content", text}}}}};
  }

  client::FakeState state_;
  client::FakeServer server_{state_};
  std::unique_ptr<Front> front_;
  std::unique_ptr<httplib::Client> http_;
};

/// The JSON of every event of a stream; "[DONE]" as a string.
inline std::vector<nlohmann::json> EventsOf(const std::string& body) {
  std::vector<nlohmann::json> events;
  for (absl::string_view block : absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
    if (!absl::ConsumePrefix(&block, "data: ")) continue;
    events.push_back(block == "[DONE]" ? nlohmann::json("[DONE]")
                                       : nlohmann::json::parse(block.begin(), block.end()));
  }
  return events;
}

inline std::string TextOf(const std::vector<nlohmann::json>& events) {
  std::string text;
  for (const nlohmann::json& event : events) {
    if (!event.is_object() || event["choices"].empty()) continue;
    text += event["choices"][0]["delta"].value("content", "");
  }
  return text;
}

/// A bare connection, for requests that no HTTP library would send.
class RawConnection {
 public:
  explicit RawConnection(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~RawConnection() { Close(); }

  void Send(const std::string& bytes) {
    (void)!send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  /// Reads until the other side closes.
  std::string ReadAll() {
    std::string all;
    char buffer[4096];
    for (ssize_t got; (got = recv(fd_, buffer, sizeof(buffer), 0)) > 0;) {
      all.append(buffer, static_cast<size_t>(got));
    }
    return all;
  }
  /// Reads until `needle` has come or the other side closes.
  std::string ReadUntil(const std::string& needle) {
    std::string all;
    char byte;
    while (all.find(needle) == std::string::npos && recv(fd_, &byte, 1, 0) == 1) all += byte;
    return all;
  }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

}  // namespace videonsa::openai
