#include "client/openai/api_error.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "client/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "nlohmann/json.hpp"

namespace videonsa::openai {
namespace {

struct Kind {
  int http_status;
  const char* type;
};

Kind KindOf(absl::StatusCode code, absl::string_view reason) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      if (reason == "BODY_TOO_LARGE") return {413, "invalid_request_error"};
      return {400, "invalid_request_error"};
    case absl::StatusCode::kUnauthenticated:
      return {401, "authentication_error"};
    case absl::StatusCode::kPermissionDenied:
      return {403, "permission_error"};
    case absl::StatusCode::kNotFound:
      return {404, "not_found_error"};
    case absl::StatusCode::kFailedPrecondition:
      // A clip that is still being looked at may be ready at the next attempt, one that failed not.
      if (reason == "CLIP_FAILED") return {400, "invalid_request_error"};
      return {409, "conflict_error"};
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
      return {409, "conflict_error"};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error"};
    case absl::StatusCode::kUnimplemented:
      return {501, "not_implemented_error"};
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return {503, "service_unavailable_error"};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, "timeout_error"};
    default:
      return {500, "server_error"};
  }
}

}  // namespace

std::string ApiError::Json() const {
  const nlohmann::json body = {
      {"error",
       {{"message", message},
        {"type", type},
        {"param", param.empty() ? nlohmann::json() : nlohmann::json(param)},
        {"code", code}}}};
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::Status BadArgument(absl::string_view param, absl::string_view reason,
                         absl::string_view message) {
  google::rpc::Status details;
  details.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
  details.set_message(std::string(message));
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain("videonsa.openai");
  details.add_details()->PackFrom(info);
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field(std::string(param));
  details.add_details()->PackFrom(bad);
  return client::FromGrpc(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, std::string(message),
                                       details.SerializeAsString()));
}

std::string ParamOfField(absl::string_view field, int leading_system) {
  if (!absl::ConsumePrefix(&field, "question.")) return std::string(field);
  if (absl::ConsumePrefix(&field, "generation.")) {
    return field == "max_output_tokens" ? "max_completion_tokens" : std::string(field);
  }
  if (field == "system_instruction") return "messages[0].content";
  if (field == "turns") return "messages";
  if (absl::ConsumePrefix(&field, "turns[")) {
    int turn = 0;
    const size_t end = field.find(']');
    if (end != absl::string_view::npos && absl::SimpleAtoi(field.substr(0, end), &turn)) {
      const std::string rest = absl::StrReplaceAll(field.substr(end + 1), {{".parts", ".content"}});
      return absl::StrCat("messages[", turn + leading_system, "]", rest);
    }
  }
  return absl::StrCat("videonsa.", field);
}

ApiError ToApiError(const absl::Status& status, int leading_system) {
  const client::ErrorDetails details = client::DetailsOf(status);
  const Kind kind = KindOf(details.code, details.reason);
  ApiError error;
  error.http_status = kind.http_status;
  error.type = kind.type;
  error.code = details.reason.empty() ? client::CodeName(details.code) : details.reason;
  error.message = details.message.empty() ? "the server gave no message" : details.message;
  error.request_id = details.request_id;
  error.retry_after = details.retry_after;
  if (!details.fields.empty()) {
    error.param = details.domain == "videonsa.openai"
                      ? details.fields.front().first
                      : ParamOfField(details.fields.front().first, leading_system);
  }
  if (details.code == absl::StatusCode::kUnavailable && details.reason.empty()) {
    // A text of the transport, which names addresses.
    error.code = "SERVER_UNREACHABLE";
    error.message = "the inference server cannot be reached";
    if (!error.retry_after) error.retry_after = absl::Seconds(1);
  }
  return error;
}

}  // namespace videonsa::openai
