#include "client/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/format.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace videonsa::client {
namespace {

constexpr char kPayloadUrl[] = "type.googleapis.com/google.rpc.Status";

template <typename T, typename F>
void IfIs(const google::protobuf::Any& any, F use) {
  T message;
  if (any.Is<T>() && any.UnpackTo(&message)) use(message);
}

void Unpack(const google::protobuf::Any& any, ErrorDetails& out) {
  IfIs<google::rpc::ErrorInfo>(any, [&](const auto& info) {
    out.reason = info.reason();
    out.domain = info.domain();
    for (const auto& [key, value] : info.metadata()) out.metadata[key] = value;
  });
  IfIs<google::rpc::BadRequest>(any, [&](const auto& bad) {
    for (const auto& violation : bad.field_violations()) {
      out.fields.emplace_back(violation.field(), violation.description());
    }
  });
  IfIs<google::rpc::QuotaFailure>(any, [&](const auto& quota) {
    for (const auto& violation : quota.violations()) {
      out.quota.emplace_back(violation.subject(), violation.description());
    }
  });
  IfIs<google::rpc::ResourceInfo>(any, [&](const auto& resource) {
    out.resource_type = resource.resource_type();
    out.resource_name = resource.resource_name();
  });
  IfIs<google::rpc::RetryInfo>(any, [&](const auto& retry) {
    out.retry_after = absl::Seconds(retry.retry_delay().seconds()) +
                      absl::Nanoseconds(retry.retry_delay().nanos());
  });
  IfIs<google::rpc::RequestInfo>(any,
                                 [&](const auto& info) { out.request_id = info.request_id(); });
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (!status.error_details().empty()) {
    result.SetPayload(kPayloadUrl, absl::Cord(status.error_details()));
  }
  return result;
}

absl::Status LocalError(absl::StatusCode code, absl::string_view reason,
                        absl::string_view message) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain("videonsa.client");
  google::rpc::Status details;
  details.set_code(static_cast<int>(code));
  details.set_message(std::string(message));
  details.add_details()->PackFrom(info);
  absl::Status status(code, message);
  status.SetPayload(kPayloadUrl, absl::Cord(details.SerializeAsString()));
  return status;
}

ErrorDetails DetailsOf(const absl::Status& status) {
  ErrorDetails out;
  out.code = status.code();
  out.message = std::string(status.message());
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  google::rpc::Status details;
  if (!payload || !details.ParseFromString(std::string(*payload))) return out;
  if (out.message.empty()) out.message = details.message();
  for (const google::protobuf::Any& any : details.details()) Unpack(any, out);
  return out;
}

std::string CodeName(absl::StatusCode code) {
  const std::string name = absl::StatusCodeToString(code);
  return name.empty() ? absl::StrCat("CODE_", static_cast<int>(code)) : name;
}

bool IsTransient(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return true;
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kCancelled:
      // A connection cut in the middle of a stream shows as one of these, without a reason.
      return DetailsOf(status).reason.empty();
    default:
      return false;
  }
}

std::string RetryAdvice(const ErrorDetails& details) {
  std::string wait;
  if (details.retry_after) wait = absl::StrCat("wait ", HumanDuration(*details.retry_after));
  switch (details.code) {
    case absl::StatusCode::kUnavailable:
      if (details.reason.empty()) return "is the server running at this address? (--server ADDR)";
      return wait.empty() ? "ask again, or ask another server"
                          : absl::StrCat(wait, " and ask again, or ask another server now");
    case absl::StatusCode::kResourceExhausted:
      return wait.empty() ? "" : absl::StrCat(wait, " and ask again");
    case absl::StatusCode::kFailedPrecondition:
      return wait.empty() ? "" : absl::StrCat(wait, " and look again");
    case absl::StatusCode::kDeadlineExceeded:
      return "give it more time (--timeout), fewer frames or a smaller budget";
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDataLoss:
      return "repeat the command";
    default:
      return wait.empty() ? "" : absl::StrCat(wait, " and ask again");
  }
}

std::string ErrorText(const absl::Status& status) {
  const ErrorDetails details = DetailsOf(status);
  std::string text = CodeName(details.code);
  if (!details.reason.empty()) absl::StrAppend(&text, " ", details.reason);
  absl::StrAppend(&text, ": ", details.message.empty() ? "no message" : details.message);
  for (const auto& [field, description] : details.fields) {
    // The message usually opens with the field; then it says everything already.
    if (absl::StrContains(details.message, field)) continue;
    absl::StrAppend(&text, "\n  field     ", field, ": ", description);
  }
  for (const auto& [subject, description] : details.quota) {
    absl::StrAppend(&text, "\n  quota     ", subject, ": ", description);
  }
  if (!details.resource_name.empty()) {
    absl::StrAppend(&text, "\n  resource  ", details.resource_type, " ", details.resource_name);
  }
  for (const auto& [key, value] : details.metadata) {
    // Said above.
    if (!details.resource_name.empty() && absl::StartsWith(key, "resource_")) continue;
    absl::StrAppend(&text, "\n  ", key, key.size() < 10 ? std::string(10 - key.size(), ' ') : " ",
                    value);
  }
  if (!details.request_id.empty()) absl::StrAppend(&text, "\n  request   ", details.request_id);
  const std::string advice = RetryAdvice(details);
  if (!advice.empty()) absl::StrAppend(&text, "\n  advice    ", advice);
  return PrintableText(text);
}

}  // namespace videonsa::client
