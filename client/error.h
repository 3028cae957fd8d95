#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace videonsa::client {

/// What a server said about a failure, decoded from the google.rpc details of the status.
struct ErrorDetails {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string message;
  /// ErrorInfo: UPPER_SNAKE_CASE, stable; empty if the server sent none.
  std::string reason;
  std::string domain;
  std::map<std::string, std::string> metadata;
  /// BadRequest: (field, description).
  std::vector<std::pair<std::string, std::string>> fields;
  /// QuotaFailure: (subject, description).
  std::vector<std::pair<std::string, std::string>> quota;
  /// ResourceInfo.
  std::string resource_type;
  std::string resource_name;
  /// RetryInfo: how long to wait before a repeat may succeed.
  std::optional<absl::Duration> retry_after;
  /// RequestInfo: what to quote to the operator.
  std::string request_id;
};

/// Turns the status of a call into an absl status that keeps the server's details.
absl::Status FromGrpc(const grpc::Status& status);

/// An error made on this side, with a reason like the server's.
absl::Status LocalError(absl::StatusCode code, absl::string_view reason, absl::string_view message);

/// Everything known about `status`; a status without details gives code and message only.
ErrorDetails DetailsOf(const absl::Status& status);

/// "INVALID_ARGUMENT" and so on; "CODE_17" for numbers without a name.
std::string CodeName(absl::StatusCode code);

/// True if the same call may succeed later without a change: UNAVAILABLE, a cut connection.
bool IsTransient(const absl::Status& status);

/// One sentence on what the caller can do now ("wait 2 s and ask again"); empty if nothing helps.
std::string RetryAdvice(const ErrorDetails& details);

/// Several lines for people: reason, message, fields, values, advice. No line break at the end.
/// Control characters of the server's text are removed.
std::string ErrorText(const absl::Status& status);

}  // namespace videonsa::client
