#include "client/openai/chat_handler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/error.h"
#include "client/openai/api_error.h"
#include "client/openai/http_connection.h"

namespace videonsa::openai {
namespace {

constexpr absl::Duration kLookAtCaller = absl::Milliseconds(250);
constexpr size_t kMaxHeaderBytes = 4096;

bool CallerGone() {
  const HttpConnection* const connection = HttpConnection::Current();
  return connection != nullptr && connection->PeerGone();
}

// gRPC aborts the process on metadata with other bytes.
bool FitsMetadata(const std::string& value) {
  return value.size() <= kMaxHeaderBytes && std::all_of(value.begin(), value.end(), [](char c) {
           return absl::ascii_isprint(static_cast<unsigned char>(c));
         });
}

absl::Status Incomplete() {
  return client::LocalError(absl::StatusCode::kDataLoss, "STREAM_INCOMPLETE",
                            "the server ended the answer without its final event");
}

// Nobody reads it if the caller has gone.
absl::Status EndedEarly(bool cut) {
  return client::LocalError(absl::StatusCode::kUnavailable, cut ? "DRAINING" : "CALLER_GONE",
                            cut ? "this front is ending" : "the caller went away");
}

}  // namespace

void SetError(const absl::Status& status, int leading_system, httplib::Response& response) {
  const ApiError error = ToApiError(status, leading_system);
  response.status = error.http_status;
  if (error.retry_after) {
    const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(*error.retry_after, absl::Seconds(1)));
    response.set_header("Retry-After", absl::StrCat(std::max<int64_t>(seconds, 1)));
  }
  if (error.http_status == 401) response.set_header("WWW-Authenticate", "Bearer");
  if (!error.request_id.empty() && FitsMetadata(error.request_id)) {
    response.set_header("x-request-id", error.request_id);
  }
  response.set_content(error.Json(), "application/json");
}

absl::Status HeadersOf(const httplib::Request& request, CallHeaders& headers) {
  for (const char* name : {"authorization", "x-request-id", "traceparent", "tracestate"}) {
    if (!request.has_header(name)) continue;
    std::string value = request.get_header_value(name);
    if (absl::string_view(name) == "authorization") {
      if (!FitsMetadata(value) || !absl::StartsWithIgnoreCase(value, "Bearer ")) {
        return client::LocalError(absl::StatusCode::kUnauthenticated, "TOKEN_MALFORMED",
                                  "the Authorization header is no Bearer token");
      }
      value = absl::StrCat("Bearer ", value.substr(7));
    }
    if (FitsMetadata(value)) headers.metadata[name] = value;
  }
  return absl::OkStatus();
}

ChatAnswer::ChatAnswer(std::shared_ptr<AskSession> session, const ChatRequest& request,
                       std::shared_ptr<OpenQuestion> open, FrontMetrics& metrics)
    : session_(std::move(session)),
      open_(std::move(open)),
      metrics_(metrics),
      include_usage_(request.include_usage),
      leading_system_(request.leading_system) {
  head_.created = absl::ToUnixSeconds(absl::Now());
  head_.model = request.model;
}

ChatAnswer::News ChatAnswer::Await(absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  while (true) {
    if (metrics_.cut) {
      session_->Cancel();
      return News::kGone;
    }
    const absl::Duration left = end - absl::Now();
    if (left <= absl::ZeroDuration()) return News::kQuiet;
    v1::AskStreamResponse event;
    switch (session_->Next(std::min(left, kLookAtCaller), event)) {
      case AskSession::Wait::kEnd:
        return News::kEnd;
      case AskSession::Wait::kTimeout:
        if (CallerGone()) {
          session_->Cancel();
          metrics_.CountDisconnect();
          return News::kGone;
        }
        break;
      case AskSession::Wait::kEvent:
        if (event.has_accepted()) head_.id = absl::StrCat("chatcmpl-", event.accepted().ask_id());
        if (event.has_final()) {
          result_ = std::move(*event.mutable_final());
          has_result_ = true;
        }
        if (event.has_delta() && !event.delta().text().empty()) {
          new_text_ += event.delta().text();
          return News::kText;
        }
    }
  }
}

absl::Status ChatAnswer::Outcome() const {
  const absl::Status status = session_->status();
  if (!status.ok()) return status;
  return has_result_ ? absl::OkStatus() : Incomplete();
}

void ChatAnswer::Whole(httplib::Response& response) {
  News news = News::kText;
  while (news == News::kText || news == News::kQuiet) {
    news = Await(absl::Minutes(1));
    all_text_ += std::exchange(new_text_, {});
  }
  if (news == News::kGone) return SetError(EndedEarly(metrics_.cut), leading_system_, response);
  if (const absl::Status status = Outcome(); !status.ok()) {
    SetError(status, leading_system_, response);
    return;
  }
  result_.set_text(all_text_);
  const std::string id = session_->request_id();
  if (!id.empty()) response.set_header("x-request-id", id);
  response.status = 200;
  response.set_content(CompletionJson(head_, result_), "application/json");
}

void ChatAnswer::Stream(std::shared_ptr<ChatAnswer> answer, absl::Duration quiet,
                        httplib::Response& response) {
  const News news = answer->Await(quiet);
  if (news == News::kGone) {
    return SetError(EndedEarly(answer->metrics_.cut), answer->leading_system_, response);
  }
  if (news == News::kEnd) {
    const absl::Status status = answer->Outcome();
    if (!status.ok()) {
      SetError(status, answer->leading_system_, response);
      return;
    }
  }
  const std::string id = answer->session_->request_id();
  if (!id.empty()) response.set_header("x-request-id", id);
  response.set_header("Cache-Control", "no-cache");
  response.set_header("X-Accel-Buffering", "no");
  response.status = 200;
  response.set_chunked_content_provider(
      "text/event-stream", [answer = std::move(answer), quiet](size_t, httplib::DataSink& sink) {
        return answer->WriteNext(quiet, sink);
      });
}

bool ChatAnswer::WriteNext(absl::Duration quiet, httplib::DataSink& sink) {
  std::string out;
  if (!std::exchange(began_, true)) out = SseEvent(RoleChunk(head_));
  bool ended = false;
  if (new_text_.empty()) {
    const News news = Await(out.empty() ? quiet : absl::Microseconds(1));
    if (news == News::kGone) return false;
    ended = news == News::kEnd;
    if (news == News::kQuiet && out.empty()) out = ": still working\n\n";
  }
  if (!new_text_.empty()) {
    absl::StrAppend(&out, SseEvent(TextChunk(head_, std::exchange(new_text_, {}))));
  }
  if (ended) absl::StrAppend(&out, Ending());
  const bool written = sink.write(out.data(), out.size());
  if (!written || ended) session_->Cancel();
  if (ended) sink.done();
  if (!written) metrics_.CountDisconnect();
  return written;
}

std::string ChatAnswer::Ending() {
  const absl::Status status = Outcome();
  if (!status.ok()) return SseEvent(ToApiError(status, leading_system_).Json());
  std::string out = SseEvent(FinishChunk(head_, result_));
  if (include_usage_) absl::StrAppend(&out, SseEvent(UsageChunk(head_, result_)));
  absl::StrAppend(&out, "data: [DONE]\n\n");
  return out;
}

}  // namespace videonsa::openai
