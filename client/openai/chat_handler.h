#pragma once

#include <httplib.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/openai/ask_session.h"
#include "client/openai/chat_request.h"
#include "client/openai/chat_response.h"
#include "client/openai/front_metrics.h"

namespace videonsa::openai {

/// Writes `status` as an OpenAI error: body, HTTP code, Retry-After, x-request-id.
void SetError(const absl::Status& status, int leading_system, httplib::Response& response);

/// What the caller's headers add to a call: authorization, x-request-id, traceparent, tracestate.
/// Errors: UNAUTHENTICATED, INVALID_ARGUMENT for values that cannot be metadata.
absl::Status HeadersOf(const httplib::Request& request, CallHeaders& headers);

/// Counts a chat request as open while it lives.
class OpenQuestion {
 public:
  explicit OpenQuestion(FrontMetrics& metrics) : metrics_(metrics) { ++metrics_.open_questions; }
  ~OpenQuestion() { --metrics_.open_questions; }
  OpenQuestion(const OpenQuestion&) = delete;
  OpenQuestion& operator=(const OpenQuestion&) = delete;

 private:
  FrontMetrics& metrics_;
};

/// One answer on its way from a call to an HTTP response.
///
/// Threads: the connection's. While it waits for the server it looks four times a second whether
/// the caller is still there; if not, the call is cancelled.
class ChatAnswer {
 public:
  ChatAnswer(std::shared_ptr<AskSession> session, const ChatRequest& request,
             std::shared_ptr<OpenQuestion> open, FrontMetrics& metrics);

  /// Waits for the whole answer and writes it.
  void Whole(httplib::Response& response);
  /// Waits for the first text, at most `quiet`, then hands the rest to the response as server-sent
  /// events. A failure before that becomes an HTTP error.
  static void Stream(std::shared_ptr<ChatAnswer> answer, absl::Duration quiet,
                     httplib::Response& response);

 private:
  enum class News { kText, kQuiet, kEnd, kGone };
  // Waits for text, the end, or `limit`.
  News Await(absl::Duration limit);
  // Ok, or why there is no result.
  absl::Status Outcome() const;
  // Next piece of the stream into `sink`; false ends the connection.
  bool WriteNext(absl::Duration quiet, httplib::DataSink& sink);
  std::string Ending();

  const std::shared_ptr<AskSession> session_;
  const std::shared_ptr<OpenQuestion> open_;
  FrontMetrics& metrics_;
  AnswerHead head_;
  const bool include_usage_;
  const int leading_system_;
  std::string all_text_;
  std::string new_text_;
  v1::AskResult result_;
  bool has_result_ = false;
  bool began_ = false;
};

}  // namespace videonsa::openai
