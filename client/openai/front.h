#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/call_options.h"
#include "client/channel.h"
#include "client/openai/front_metrics.h"
#include "client/openai/http_connection.h"
#include "client/openai/http_server.h"
#include "client/openai/upstream.h"

namespace videonsa::openai {

/// Everything the program can be told.
struct FrontOptions {
  std::string listen = "127.0.0.1:8080";
  client::ChannelOptions server;
  int channels = 4;
  int max_connections = 512;
  int max_requests = 128;                            ///< chat requests at once
  int64_t max_bodies_bytes = int64_t{512} << 20;     ///< of all requests being read or uploaded
  absl::Duration request_time = absl::Seconds(600);  ///< whole answer
  absl::Duration drain_time = absl::Seconds(60);
  /// An answer that has no text yet after this long begins with comments, so that nobody on the way
  /// takes the stream for dead; from then on errors are events of the stream.
  absl::Duration quiet = absl::Seconds(15);
  ConnectionLimits connection;
};

/// The OpenAI-compatible HTTP server in front of one inference server.
///
///   POST /v1/chat/completions   GET /v1/models[/ID]   GET /healthz /livez /metrics
///
/// It keeps nothing: tokens are passed on, answers are not stored.
/// Threads: one a connection; gRPC's own. Lifetime: the destructor cuts what is open; Drain first.
class Front {
 public:
  /// Listens at once; does not wait for the inference server.
  /// Errors: ADDRESS_IN_USE, those of Upstream::Create.
  static absl::StatusOr<std::unique_ptr<Front>> Start(const FrontOptions& options);
  ~Front();

  int port() const { return port_; }
  /// Refuses new questions, waits until open ones have ended, at most options.drain_time. Returns
  /// the number that were cut.
  int Drain();

 private:
  explicit Front(const FrontOptions& options);
  void AddRoutes();
  void Chat(const httplib::Request& request, httplib::Response& response,
            const httplib::ContentReader& reader);
  void Models(const httplib::Request& request, httplib::Response& response, const std::string& id);
  void Health(httplib::Response& response);

  const FrontOptions options_;
  const int64_t started_;  // seconds since 1970
  FrontMetrics metrics_;
  client::Cancellation cancel_;  // of uploads, at the end
  std::unique_ptr<Upstream> upstream_;
  HttpServer http_;
  int port_ = 0;
  std::atomic<bool> draining_{false};
  std::atomic<bool> listener_ended_{false};
  std::thread listener_;
};

}  // namespace videonsa::openai
