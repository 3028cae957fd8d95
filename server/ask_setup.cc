#include "server/ask_setup.h"

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/log.h"

namespace videonsa {
namespace {

absl::StatusOr<PreparedQuestion> Prepare(ServerCore& core, const CallContext& call,
                                         const v1::Question& question) {
  PreparedQuestion out;
  VNSA_ASSIGN_OR_RETURN(out.runtime, core.Admit());
  const QuestionParser parser(core.options.question, out.runtime->model());
  VNSA_ASSIGN_OR_RETURN(out.parsed, parser.Parse(
                                        question,
                                        [&core, &call](const std::string& name) {
                                          return core.clips.Acquire(call.tenant, name);
                                        },
                                        [&core, &out](const std::string& url) {
                                          out.needs_fetch = true;
                                          return core.importer.CheckUrl(url);
                                        }));
  if (call.deadline <= core.clock.Monotonic()) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_TOO_SHORT",
                     "the deadline leaves no time to begin");
  }
  if (out.parsed.request.generation.ignore_eos) {
    VNSA_RETURN_IF_ERROR(core.access.Require(call.scopes, kScopeBench, "bench"));
  }
  out.trace = {call.trace, call.method, call.request_id, call.received};
  out.parsed.request.tenant = call.tenant;
  out.parsed.request.request_id = call.request_id;
  out.parsed.request.deadline = call.deadline;
  return out;
}

}  // namespace

absl::StatusOr<PreparedQuestion> PrepareQuestion(ServerCore& core, const CallContext& call,
                                                 const v1::Question& question) {
  absl::StatusOr<PreparedQuestion> prepared = Prepare(core, call, question);
  if (!prepared.ok()) core.requests.Refused(prepared.status());
  return prepared;
}

void FetchQuestion(ServerCore& core, const CallContext& call, v1::Question question,
                   FetchControl control,
                   std::function<void(absl::StatusOr<PreparedQuestion>)> ready) {
  core.importer.Localize(
      {.tenant = call.tenant,
       .question = std::move(question),
       .deadline = call.deadline,
       .cancelled = std::move(control.cancelled),
       .progress = std::move(control.progress)},
      [&core, call, ready = std::move(ready)](absl::StatusOr<ClipImporter::Localized> localized) {
        if (!localized.ok()) {
          core.requests.Refused(localized.status());
          return ready(localized.status());
        }
        absl::StatusOr<PreparedQuestion> prepared =
            PrepareQuestion(core, call, localized->question);
        if (prepared.ok()) prepared->parsed.holds.push_back(std::move(localized->hold));
        ready(std::move(prepared));
      });
}

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

}  // namespace videonsa
