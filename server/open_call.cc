#include "server/open_call.h"

#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/telemetry/log.h"
#include "server/status_conversion.h"

namespace videonsa {
namespace {

// One line about an ended question.
void LogEnded(const CallContext& call, const std::string& ask_id, const absl::Status& status,
              absl::Duration took) {
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  Log(status.code() == absl::StatusCode::kInternal ? LogLevel::kError : LogLevel::kInfo,
      "ask ended",
      {{"request_id", call.request_id},
       {"ask_id", ask_id},
       {"tenant", call.tenant},
       {"trace_id", call.trace.trace_id},
       {"span_id", call.trace.span_id},
       {"code", absl::StatusCodeToString(status.code())},
       {"reason", info ? info->reason : ""},
       {"seconds", took}});
}

}  // namespace

OpenCall::OpenCall(ServerCore& core, Method method, grpc::CallbackServerContext& context)
    : core_(core),
      grpc_(context),
      meter_(core.calls, method),
      context_(MakeCallContext(core, method, context)) {}

template <typename Add>
void OpenCall::AddIds(Add add) const {
  add("x-request-id", context_.request_id);
  add("traceresponse", context_.trace.Header());
  if (!ask_id_.empty()) add("videonsa-ask-id", ask_id_);
}

void OpenCall::Answering() {
  if (answering_) return;
  answering_ = true;
  AddIds([this](const char* key, const std::string& id) { grpc_.AddInitialMetadata(key, id); });
}

grpc::Status OpenCall::End(const absl::Status& status) {
  meter_.SetCode(static_cast<int>(status.code()));
  if (InfoOf(context_.method).question) {
    LogEnded(context_, ask_id_, status, core_.clock.Monotonic() - context_.received_at);
  }
  if (status.ok()) {
    Answering();
  } else if (!answering_) {
    AddIds([this](const char* key, const std::string& id) { grpc_.AddTrailingMetadata(key, id); });
    const std::optional<ErrorInfo> info = GetErrorInfo(status);
    if (info && info->retry_after) {
      const int64_t wait = absl::ToInt64Milliseconds(*info->retry_after);
      grpc_.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(wait));
    }
  }
  return ToGrpcStatus(status, context_.request_id);
}

}  // namespace videonsa
