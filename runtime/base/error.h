#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace videonsa {

/// Machine-readable part of an error: what clients may act on.
struct ErrorInfo {
  /// UPPER_SNAKE_CASE, stable, e.g. "MEDIA_CORRUPT". Never empty.
  std::string reason;
  /// The offending values and limits by name; keys are stable per reason.
  std::vector<std::pair<std::string, std::string>> metadata;
  /// Name of the request field at fault ("question.turns[0]"); empty if none.
  std::string field;
  /// Advice when a repeat may succeed.
  std::optional<absl::Duration> retry_after;
};

/// Makes a status that carries `info` as a payload.
///
/// Requires: `code` is not OK; `message` is lower case, names the field, gives the numbers, holds
///           no path, address or library text.
absl::Status MakeError(absl::StatusCode code, ErrorInfo info, absl::string_view message);

/// Shorthand of MakeError for errors without metadata.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message);

/// INVALID_ARGUMENT with reason FIELD_INVALID for request field `field`.
absl::Status InvalidField(absl::string_view field, absl::string_view message);

/// The info that MakeError attached, or nothing for a plain status.
std::optional<ErrorInfo> GetErrorInfo(const absl::Status& status);

}  // namespace videonsa
