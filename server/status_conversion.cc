#include "server/status_conversion.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/telemetry/log.h"
#include "server/proto_time.h"

namespace videonsa {
namespace {

constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxDetailBytes = 4096;
constexpr size_t kMaxValueBytes = 256;
constexpr size_t kMaxMetadata = 16;
constexpr char kDomain[] = "videonsa.v1";

// Cuts at a character's border.
std::string Cut(absl::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end));
}

std::string MetadataOf(const ErrorInfo& info, absl::string_view key) {
  for (const auto& [name, value] : info.metadata) {
    if (name == key) return Cut(value, kMaxValueBytes);
  }
  return "";
}

void AddDetails(const ErrorInfo& info, const std::string& message, google::rpc::Status& out) {
  google::rpc::ErrorInfo error;
  error.set_reason(info.reason);
  error.set_domain(kDomain);
  for (const auto& [key, value] : info.metadata) {
    if (static_cast<size_t>(error.metadata_size()) == kMaxMetadata) break;
    (*error.mutable_metadata())[key] = Cut(value, kMaxValueBytes);
  }
  out.add_details()->PackFrom(error);
  if (!info.field.empty()) {
    google::rpc::BadRequest bad;
    auto* const violation = bad.add_field_violations();
    violation->set_field(Cut(info.field, kMaxValueBytes));
    violation->set_description(Cut(message, kMaxValueBytes));
    out.add_details()->PackFrom(bad);
  }
  if (const std::string type = MetadataOf(info, "resource_type"); !type.empty()) {
    google::rpc::ResourceInfo resource;
    resource.set_resource_type(type);
    resource.set_resource_name(MetadataOf(info, "resource_name"));
    out.add_details()->PackFrom(resource);
  }
  if (const std::string quota = MetadataOf(info, "quota"); !quota.empty()) {
    google::rpc::QuotaFailure failure;
    auto* const violation = failure.add_violations();
    violation->set_subject(quota);
    violation->set_description(Cut(message, kMaxValueBytes));
    out.add_details()->PackFrom(failure);
  }
  if (info.retry_after) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = ToProto(*info.retry_after);
    out.add_details()->PackFrom(retry);
  }
}

bool MayComeFromALibrary(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view request_id) {
  if (status.ok()) return grpc::Status::OK;
  std::optional<ErrorInfo> info = GetErrorInfo(status);
  std::string message = Cut(status.message(), kMaxMessageBytes);
  if (!info) {
    info = ErrorInfo{.reason = absl::StatusCodeToString(status.code())};
    if (MayComeFromALibrary(status.code())) {
      Log(LogLevel::kError, "error without a reason",
          {{"request_id", request_id}, {"status", status.ToString()}});
      info->reason = "INTERNAL";
      message = "internal error";
    }
  }
  google::rpc::Status wire;
  wire.set_code(static_cast<int>(status.code()));
  wire.set_message(Cut(message, kMaxValueBytes));
  google::rpc::RequestInfo request;
  request.set_request_id(Cut(request_id, kMaxValueBytes));
  wire.add_details()->PackFrom(request);
  AddDetails(*info, message, wire);
  if (wire.ByteSizeLong() > kMaxDetailBytes) {  // keep what a program acts on
    wire.clear_details();
    wire.add_details()->PackFrom(request);
    AddDetails(ErrorInfo{.reason = info->reason, .retry_after = info->retry_after}, "", wire);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      wire.SerializeAsString());
}

absl::Status NotImplemented(absl::string_view method) {
  return MakeError(absl::StatusCode::kUnimplemented, "NOT_IMPLEMENTED",
                   absl::StrCat(method, " is not implemented by this server yet"));
}

}  // namespace videonsa
