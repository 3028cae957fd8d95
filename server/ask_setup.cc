#include "server/ask_setup.h"

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/ask_run.h"

namespace videonsa {
namespace {

absl::StatusOr<PreparedQuestion> Prepare(ServerCore& core, const CallContext& call,
                                         const v1::Question& question, const SessionStep& session) {
  PreparedQuestion out;
  VNSA_ASSIGN_OR_RETURN(out.runtime, core.Admit());
  const QuestionParser parser(core.options.question, out.runtime->model());
  VNSA_ASSIGN_OR_RETURN(out.parsed, parser.Parse(
                                        question,
                                        [&core, &call](const std::string& name) {
                                          return core.clips.Acquire(call.tenant, name);
                                        },
                                        [&core, &call, &out](const std::string& url) {
                                          out.needs_fetch = true;
                                          return core.importer.CheckUrl(call.tenant, url);
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
  if (out.needs_fetch) return out;  // comes again with its clips
  if (session != nullptr) {
    VNSA_ASSIGN_OR_RETURN(out.turn, session(out));
  } else if (!question.session().empty()) {
    VNSA_RETURN_IF_ERROR(CheckSessionQuestion(question));
    VNSA_ASSIGN_OR_RETURN(out.turn, core.sessions.Ask(call.tenant, question.session(), out.parsed));
  }
  return out;
}

void Submit(PreparedQuestion prepared, const std::shared_ptr<AskRun>& run) {
  GenerateRequest& question = prepared.parsed.request;
  AskRun::Question rest{.report = question.report,
                        .priority = question.priority,
                        .trace = std::move(prepared.trace),
                        .holds = std::move(prepared.parsed.holds),
                        .turn = std::move(prepared.turn)};
  run->Submit(*prepared.runtime, std::move(question), std::move(rest), run);
}

}  // namespace

absl::Status CheckSessionQuestion(const v1::Question& question) {
  if (!question.system_instruction().empty()) {
    return InvalidField("question.system_instruction", "must be unset: the session has decided it");
  }
  if (question.attention().ByteSizeLong() > 0) {
    return InvalidField("question.attention", "must be unset: the session has decided it");
  }
  if (question.turns_size() > 1) {
    return InvalidField("question.turns", absl::StrCat("are ", question.turns_size(),
                                                       ", a session takes one at a time"));
  }
  return absl::OkStatus();
}

void StartRun(ServerCore& core, const CallContext& call, v1::Question question, SessionStep session,
              std::shared_ptr<AskRun> run) {
  absl::StatusOr<PreparedQuestion> prepared = PrepareQuestion(core, call, question, session);
  if (!prepared.ok()) return run->Refuse(prepared.status());
  if (!prepared->needs_fetch) return Submit(*std::move(prepared), run);
  FetchQuestion(
      core, call, std::move(question), {.cancelled = [run] { return run->abandoned(); }},
      [run](absl::StatusOr<PreparedQuestion> fetched) {
        if (!fetched.ok()) return run->Refuse(fetched.status());
        Submit(*std::move(fetched), run);
      },
      std::move(session));
}

absl::StatusOr<PreparedQuestion> PrepareQuestion(ServerCore& core, const CallContext& call,
                                                 const v1::Question& question,
                                                 const SessionStep& session) {
  absl::StatusOr<PreparedQuestion> prepared = Prepare(core, call, question, session);
  if (!prepared.ok()) core.requests.Refused(prepared.status());
  return prepared;
}

void FetchQuestion(ServerCore& core, const CallContext& call, v1::Question question,
                   FetchControl control,
                   std::function<void(absl::StatusOr<PreparedQuestion>)> ready,
                   SessionStep session) {
  auto prepare_again = [&core, call, ready = std::move(ready), session = std::move(session)](
                           absl::StatusOr<ClipImporter::Localized> localized) {
    if (!localized.ok()) {
      core.requests.Refused(localized.status());
      return ready(localized.status());
    }
    absl::StatusOr<PreparedQuestion> prepared =
        PrepareQuestion(core, call, localized->question, session);
    if (prepared.ok()) prepared->parsed.holds.push_back(std::move(localized->hold));
    ready(std::move(prepared));
  };
  core.importer.Localize({.tenant = call.tenant,
                          .question = std::move(question),
                          .deadline = call.deadline,
                          .cancelled = std::move(control.cancelled),
                          .progress = std::move(control.progress)},
                         std::move(prepare_again));
}

}  // namespace videonsa
