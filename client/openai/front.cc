#include "client/openai/front.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/error.h"
#include "client/openai/api_error.h"
#include "client/openai/chat_handler.h"
#include "client/openai/chat_request.h"
#include "client/openai/chat_response.h"
#include "client/openai/inline_upload.h"

namespace videonsa::openai {
namespace {

// A server that restarts with another model is noticed within this time.
constexpr absl::Duration kModelAge = absl::Seconds(30);
constexpr absl::Duration kHealthTime = absl::Seconds(2);
constexpr absl::Duration kDrainLook = absl::Milliseconds(50);
// What a caller only announces costs at most this.
constexpr size_t kReservedBody = size_t{1} << 20;

absl::Status Full(absl::string_view what) {
  return client::LocalError(absl::StatusCode::kUnavailable, "FRONT_FULL", what);
}

// Bytes of a body, given back when it goes.
class BodyBytes {
 public:
  BodyBytes(std::atomic<int64_t>& held, int64_t limit) : held_(held), limit_(limit) {}
  ~BodyBytes() { held_ -= mine_; }
  BodyBytes(const BodyBytes&) = delete;
  BodyBytes& operator=(const BodyBytes&) = delete;

  bool Take(size_t bytes) {
    mine_ += static_cast<int64_t>(bytes);
    return held_.fetch_add(static_cast<int64_t>(bytes)) + static_cast<int64_t>(bytes) <= limit_;
  }

 private:
  std::atomic<int64_t>& held_;
  const int64_t limit_;
  int64_t mine_ = 0;
};

// Reads the body within both limits. After a failure the rest is still in the connection.
absl::Status ReadBody(const httplib::Request& request, const httplib::ContentReader& reader,
                      size_t limit, BodyBytes& bytes, std::string& body) {
  const absl::Status too_large =
      BadArgument("", "BODY_TOO_LARGE", absl::StrCat("the body is larger than ", limit, " bytes"));
  absl::Status refused;
  size_t announced = 0;
  if (absl::SimpleAtoi(request.get_header_value("Content-Length"), &announced) &&
      announced > limit) {
    refused = too_large;
  }
  body.reserve(std::min(announced, kReservedBody));
  const bool complete = refused.ok() && reader([&](const char* data, size_t size) {
                          if (body.size() + size > limit) {
                            refused = too_large;
                          } else if (!bytes.Take(size)) {
                            refused = Full("too many bytes of requests are being read; ask again");
                          } else {
                            body.append(data, size);
                          }
                          return refused.ok();
                        });
  if (complete && refused.ok()) return absl::OkStatus();
  if (HttpConnection* connection = HttpConnection::Current()) connection->CloseAfterThis();
  if (!refused.ok()) return refused;
  return BadArgument("", "BODY_INCOMPLETE", "the body ended early or came too slowly");
}

client::CallOptions OptionsOf(const CallHeaders& headers) {
  client::CallOptions options;
  options.timeout = headers.timeout;
  const auto found = headers.metadata.find("authorization");
  if (found != headers.metadata.end()) {
    options.bearer_token = found->second.substr(7);  // after "Bearer "
  }
  return options;
}

absl::Status CheckModel(const std::string& asked, const v1::ModelInfo& model) {
  if (asked == model.name()) return absl::OkStatus();
  return client::LocalError(
      absl::StatusCode::kNotFound, "MODEL_NOT_FOUND",
      absl::StrCat("no model ", asked.substr(0, 128), "; this server has ", model.name()));
}

// Splits "host:port"; port 0 takes a free one.
bool SplitAddress(const std::string& address, std::string& host, int& port) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port)) {
    return false;
  }
  host = address.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return !host.empty() && port >= 0 && port <= 65535;
}

}  // namespace

Front::Front(const FrontOptions& options)
    : options_(options),
      started_(absl::ToUnixSeconds(absl::Now())),
      http_(options.connection, options.max_connections) {}

absl::StatusOr<std::unique_ptr<Front>> Front::Start(const FrontOptions& options) {
  std::string host;
  int port = 0;
  if (!SplitAddress(options.listen, host, port)) {
    return client::LocalError(absl::StatusCode::kInvalidArgument, "FIELD_INVALID",
                              absl::StrCat("--listen: ", options.listen, " is no HOST:PORT"));
  }
  std::unique_ptr<Front> front(new Front(options));
  auto upstream = Upstream::Create(options.server, options.channels);
  if (!upstream.ok()) return upstream.status();
  front->upstream_ = *std::move(upstream);
  front->AddRoutes();
  // Without SO_REUSEPORT, which is the library's habit: a second process on the port must fail.
  front->http_.set_socket_options([](socket_t sock) {
    const int on = 1;
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  });
  front->port_ = port == 0                               ? front->http_.bind_to_any_port(host)
                 : front->http_.bind_to_port(host, port) ? port
                                                         : -1;
  if (front->port_ <= 0) {
    return client::LocalError(absl::StatusCode::kUnavailable, "ADDRESS_IN_USE",
                              absl::StrCat("cannot listen on ", options.listen));
  }
  front->listener_ = std::thread([self = front.get()] {
    self->http_.listen_after_bind();
    self->listener_ended_ = true;
  });
  return front;
}

Front::~Front() {
  if (!listener_.joinable()) return;
  // A stop that comes before the loop has begun would be lost.
  while (!http_.is_running() && !listener_ended_) absl::SleepFor(absl::Milliseconds(1));
  metrics_.cut = true;
  cancel_.Cancel();
  http_.stop();
  listener_.join();
}

int Front::Drain() {
  draining_ = true;
  const absl::Time end = absl::Now() + options_.drain_time;
  while (metrics_.open_questions > 0 && absl::Now() < end) absl::SleepFor(kDrainLook);
  return metrics_.open_questions;
}

void Front::AddRoutes() {
  http_.Post("/v1/chat/completions",
             [this](const httplib::Request& request, httplib::Response& response,
                    const httplib::ContentReader& reader) { Chat(request, response, reader); });
  http_.Get("/v1/models", [this](const httplib::Request& request, httplib::Response& response) {
    Models(request, response, "");
  });
  http_.Get(R"(/v1/models/([\w.@:/-]{1,128}))",
            [this](const httplib::Request& request, httplib::Response& response) {
              Models(request, response, request.matches[1]);
            });
  http_.Get("/healthz",
            [this](const httplib::Request&, httplib::Response& response) { Health(response); });
  http_.Get("/livez", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("ok\n", "text/plain");
  });
  http_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics_.Text(http_.open_connections(), http_.refused_connections()),
                         "text/plain; version=0.0.4");
  });
  http_.set_on_answer([this](int status) { metrics_.CountAnswer(status); });
}

void Front::Chat(const httplib::Request& request, httplib::Response& response,
                 const httplib::ContentReader& reader) {
  const auto open = std::make_shared<OpenQuestion>(metrics_);
  CallHeaders headers;
  headers.timeout = options_.request_time;
  absl::Status early = HeadersOf(request, headers);
  if (draining_) {
    early = client::LocalError(absl::StatusCode::kUnavailable, "DRAINING", "this front is ending");
  } else if (metrics_.open_questions > options_.max_requests) {
    early = Full("too many questions at once; ask again");
  }
  if (!early.ok()) {
    HttpConnection::Current()->CloseAfterThis();  // the body was not read
    SetError(early, 0, response);
    return;
  }
  BodyBytes bytes(metrics_.body_bytes, options_.max_bodies_bytes);
  std::string body;
  absl::Status status = ReadBody(request, reader, options_.connection.body_bytes, bytes, body);
  if (!status.ok()) return SetError(status, 0, response);
  absl::StatusOr<ChatRequest> chat = ParseChatRequest(body);
  if (!chat.ok()) return SetError(chat.status(), 0, response);
  body = std::string();
  client::CallOptions options = OptionsOf(headers);
  options.cancellation = &cancel_;
  const absl::StatusOr<v1::ModelInfo> model = upstream_->Model(kModelAge, options);
  if (!model.ok()) return SetError(model.status(), 0, response);
  if (status = CheckModel(chat->model, *model); !status.ok()) return SetError(status, 0, response);
  Upstream::Line& line = upstream_->Next();
  InlineLimits limits;
  limits.max_inline_bytes = model->limits().max_inline_clip_bytes();
  status = UploadLargeMedia(*line.clips, limits, options, chat->question);
  if (!status.ok()) return SetError(status, chat->leading_system, response);
  v1::AskStreamRequest ask;
  ask.mutable_question()->Swap(&chat->question);
  auto answer = std::make_shared<ChatAnswer>(
      AskSession::Start(*line.questions, std::move(ask), headers), *chat, open, metrics_);
  if (chat->stream) {
    ChatAnswer::Stream(std::move(answer), options_.quiet, response);
  } else {
    answer->Whole(response);
  }
}

void Front::Models(const httplib::Request& request, httplib::Response& response,
                   const std::string& id) {
  CallHeaders headers;
  headers.timeout = kHealthTime;
  absl::Status status = HeadersOf(request, headers);
  if (!status.ok()) return SetError(status, 0, response);
  // Always asked anew: the answer says whether the caller's token is good.
  const absl::StatusOr<v1::ModelInfo> model =
      upstream_->Model(absl::ZeroDuration(), OptionsOf(headers));
  if (!model.ok()) return SetError(model.status(), 0, response);
  if (!id.empty()) {
    if (status = CheckModel(id, *model); !status.ok()) return SetError(status, 0, response);
  }
  response.set_content(id.empty() ? ModelListJson(*model, started_) : ModelJson(*model, started_),
                       "application/json");
}

void Front::Health(httplib::Response& response) {
  absl::Status status = upstream_->Health(kHealthTime);
  if (draining_) {
    status = client::LocalError(absl::StatusCode::kUnavailable, "DRAINING", "this front is ending");
  }
  if (!status.ok()) return SetError(status, 0, response);
  response.set_content("ok\n", "text/plain");
}

}  // namespace videonsa::openai
