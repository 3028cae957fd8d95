#include "client/openai/http_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/openai/api_error.h"

namespace videonsa::openai {
namespace {

// A connection may carry any number; the library's answer names one.
constexpr size_t kAdvertisedRequests = 1000;

thread_local bool turn_away = false;

// Threads made on demand, at most one a connection; with all of them busy the accepting thread runs
// the job itself with `turn_away` set.
class ConnectionThreads final : public httplib::TaskQueue {
 public:
  explicit ConnectionThreads(size_t max_threads) : max_threads_(max_threads) {}

  void enqueue(std::function<void()> job) override {
    {
      absl::MutexLock lock(&mutex_);
      const bool room = jobs_.size() < idle_ || threads_.size() < max_threads_;
      if (room) {
        jobs_.push_back(std::move(job));
        if (jobs_.size() > idle_) threads_.emplace_back([this] { Run(); });
        return;
      }
    }
    turn_away = true;
    job();
    turn_away = false;
  }

  void shutdown() override {
    std::vector<std::thread> threads;
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !jobs_.empty(); }

  void Run() {
    while (true) {
      std::function<void()> job;
      {
        absl::MutexLock lock(&mutex_);
        ++idle_;
        mutex_.Await(absl::Condition(this, &ConnectionThreads::HasWork));
        --idle_;
        if (jobs_.empty()) return;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job();
    }
  }

  const size_t max_threads_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

void Answer(httplib::Response& response, const ApiError& error) {
  response.status = error.http_status;
  response.set_content(error.Json(), "application/json");
}

// A request whose length is told twice, or in a way that the library does not read.
bool FramingIsPlain(const httplib::Request& request) {
  const size_t lengths = request.get_header_value_count("Content-Length");
  const size_t codings = request.get_header_value_count("Transfer-Encoding");
  if (lengths > 1 || codings > 1 || lengths + codings > 1) return false;
  if (codings == 1 &&
      !absl::EqualsIgnoreCase(request.get_header_value("Transfer-Encoding"), "chunked")) {
    return false;
  }
  if (lengths == 1) {
    const std::string length = request.get_header_value("Content-Length");
    if (length.empty() || length.size() > 12 ||
        length.find_first_not_of("0123456789") != std::string::npos) {
      return false;
    }
  }
  return request.method == "POST" || lengths + codings == 0 ||
         request.get_header_value("Content-Length") == "0";
}

httplib::Server::HandlerResponse CheckHead(const httplib::Request& request,
                                           httplib::Response& response) {
  HttpConnection* const connection = HttpConnection::Current();
  if (connection != nullptr) connection->BeginBody();
  ApiError error{.http_status = 0, .type = "invalid_request_error"};
  if (request.method != "GET" && request.method != "POST" && request.method != "HEAD") {
    error.http_status = 405;
    error.code = "METHOD_NOT_ALLOWED";
    error.message = "only GET and POST are served";
  } else if (!FramingIsPlain(request)) {
    error.http_status = 400;
    error.code = "BAD_FRAMING";
    error.message = "the length of the body is not told in one plain way";
  } else if (request.has_header("Content-Encoding")) {
    error.http_status = 415;
    error.code = "ENCODING_UNSUPPORTED";
    error.message = "compressed bodies are not taken";
  } else {
    return httplib::Server::HandlerResponse::Unhandled;
  }
  if (connection != nullptr) connection->CloseAfterThis();
  Answer(response, error);
  return httplib::Server::HandlerResponse::Handled;
}

// Errors that the library makes itself get a body in the format of the API.
void NameError(const httplib::Request&, httplib::Response& response) {
  if (!response.body.empty()) return;
  ApiError error{.http_status = response.status, .type = "invalid_request_error"};
  switch (response.status) {
    case 404:
      error.code = "PATH_UNKNOWN";
      error.message = "no such path; there are /v1/chat/completions and /v1/models";
      break;
    case 413:
      error.code = "BODY_TOO_LARGE";
      error.message = "the body is too large";
      break;
    default:
      error.code = "BAD_REQUEST";
      error.message = absl::StrCat("the request cannot be read (", response.status, ")");
  }
  // Whatever is left of a request that was not understood must not be read as another one.
  if (HttpConnection* connection = HttpConnection::Current()) connection->CloseAfterThis();
  Answer(response, error);
}

void TurnAway(int fd) {
  ApiError error{.http_status = 503,
                 .type = "service_unavailable_error",
                 .code = "FRONT_FULL",
                 .message = "too many connections"};
  const std::string body = error.Json();
  const std::string answer = absl::StrCat(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: "
      "1\r\nConnection: close\r\nContent-Length: ",
      body.size(), "\r\n\r\n", body);
  (void)!send(fd, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(fd, SHUT_WR);
  close(fd);
}

}  // namespace

HttpServer::HttpServer(const ConnectionLimits& limits, int max_connections) : limits_(limits) {
  const auto threads = static_cast<size_t>(max_connections);
  new_task_queue = [threads] { return new ConnectionThreads(threads); };
  set_tcp_nodelay(true);
  set_payload_max_length(limits.body_bytes);
  set_pre_routing_handler(CheckHead);
  set_error_handler(NameError);
  set_keep_alive_timeout(absl::ToInt64Seconds(limits.idle));
  set_keep_alive_max_count(kAdvertisedRequests);
  set_post_routing_handler([this](const httplib::Request&, httplib::Response& response) {
    const HttpConnection* const connection = HttpConnection::Current();
    if (connection != nullptr && connection->closing()) response.set_header("Connection", "close");
    if (on_answer_) on_answer_(response.status);
  });
  set_exception_handler(
      [](const httplib::Request&, httplib::Response& response, const std::exception_ptr&) {
        Answer(response, ApiError{.http_status = 500,
                                  .type = "server_error",
                                  .code = "INTERNAL",
                                  .message = "internal error"});
      });
}

bool HttpServer::process_and_close_socket(socket_t sock) {
  if (turn_away) {
    ++refused_connections_;
    TurnAway(sock);
    return false;
  }
  ++open_connections_;
  bool good = true;
  {
    HttpConnection connection(sock, limits_);
    const auto stop = [this] { return svr_sock_ == INVALID_SOCKET; };
    while (good && !connection.closing() && connection.WaitForRequest(stop)) {
      bool closed = false;
      good = process_request(connection, false, closed, nullptr);
      if (closed) break;
    }
  }
  --open_connections_;
  return good;
}

}  // namespace videonsa::openai
