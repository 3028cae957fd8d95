#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace videonsa::openai {

/// A failure as the OpenAI API tells it.
struct ApiError {
  int http_status = 500;
  std::string type;     ///< "invalid_request_error", "rate_limit_error", …
  std::string code;     ///< the server's reason (UPPER_SNAKE_CASE)
  std::string message;  ///< for people
  std::string param;    ///< the argument at fault; empty: none
  std::optional<absl::Duration> retry_after;
  std::string request_id;

  /// {"error": {...}} on one line.
  std::string Json() const;
};

/// An INVALID_ARGUMENT of this program about one argument of the caller's JSON.
absl::Status BadArgument(absl::string_view param, absl::string_view reason,
                         absl::string_view message);

/// Turns a status of the server or of this program into what a caller of the OpenAI API expects.
///
/// `leading_system` is the number of messages that became the system instruction: the server
/// counts turns, the caller messages.
ApiError ToApiError(const absl::Status& status, int leading_system = 0);

/// The caller's name of a field that the server names: "question.turns[1].parts[0].clip" is
/// "messages[2].content[0].clip" after one system message.
std::string ParamOfField(absl::string_view field, int leading_system);

}  // namespace videonsa::openai
