#include "runtime/base/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/base/check.h"

namespace videonsa {
namespace {

constexpr char kPayloadUrl[] = "videonsa.v1/ErrorInfo";

// Payload grammar: fields in the order reason, field, retry (nanoseconds, or "-"), then key and
// value by turns, each as "<length>:<bytes>", so that any bytes survive.
void AppendField(std::string& out, absl::string_view text) {
  absl::StrAppend(&out, text.size(), ":", text);
}

bool TakeField(absl::string_view& in, std::string& out) {
  const size_t colon = in.find(':');
  size_t size = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(in.substr(0, colon), &size))
    return false;
  if (in.size() - colon - 1 < size) return false;
  out = std::string(in.substr(colon + 1, size));
  in.remove_prefix(colon + 1 + size);
  return true;
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, ErrorInfo info, absl::string_view message) {
  VNSA_CHECK(code != absl::StatusCode::kOk && !info.reason.empty()) << message;
  absl::Status status(code, message);
  std::string payload;
  AppendField(payload, info.reason);
  AppendField(payload, info.field);
  AppendField(payload, info.retry_after ? absl::StrCat(absl::ToInt64Nanoseconds(*info.retry_after))
                                        : std::string("-"));
  for (const auto& [key, value] : info.metadata) {
    AppendField(payload, key);
    AppendField(payload, value);
  }
  status.SetPayload(kPayloadUrl, absl::Cord(payload));
  return status;
}

absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message) {
  return MakeError(code, ErrorInfo{.reason = std::string(reason)}, message);
}

absl::Status InvalidField(absl::string_view field, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   ErrorInfo{.reason = "FIELD_INVALID", .field = std::string(field)},
                   absl::StrCat(field, ": ", message));
}

std::optional<ErrorInfo> GetErrorInfo(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (!payload) return std::nullopt;
  const std::string flat(*payload);
  absl::string_view rest(flat);
  ErrorInfo info;
  std::string retry;
  if (!TakeField(rest, info.reason) || !TakeField(rest, info.field) || !TakeField(rest, retry)) {
    return std::nullopt;
  }
  int64_t nanoseconds = 0;
  if (absl::SimpleAtoi(retry, &nanoseconds)) info.retry_after = absl::Nanoseconds(nanoseconds);
  std::string key, value;
  while (!rest.empty() && TakeField(rest, key) && TakeField(rest, value)) {
    info.metadata.emplace_back(key, value);
  }
  return info;
}

}  // namespace videonsa
