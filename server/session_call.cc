#include "server/session_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/ask_setup.h"
#include "server/proto_time.h"
#include "server/random_id.h"

namespace videonsa {
namespace {

// The token that a prefill ends with is not shown to anybody.
void PrefillOnly(v1::Question& question) {
  question.mutable_generation()->set_max_output_tokens(1);
  question.mutable_generation()->set_temperature(0);
}

v1::Question QuestionOf(v1::CreateSessionRequest& request) {
  v1::Question question;
  question.set_system_instruction(request.system_instruction());
  question.mutable_turns()->Swap(request.mutable_turns());
  if (request.has_attention()) question.mutable_attention()->Swap(request.mutable_attention());
  question.set_priority(request.priority());
  PrefillOnly(question);
  return question;
}

v1::Question QuestionOf(v1::AppendToSessionRequest& request) {
  v1::Question question;
  v1::Turn& turn = *question.add_turns();
  turn.set_role(v1::Turn::ROLE_USER);
  turn.mutable_parts()->Swap(request.mutable_parts());
  PrefillOnly(question);
  return question;
}

}  // namespace

SessionCall* SessionCall::Create(ServerCore& core, AskReplay& replay,
                                 grpc::CallbackServerContext& context,
                                 const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
  auto* const call = new SessionCall(core, Method::kCreateSession, context, response);
  if (const absl::Status begun = call->BeginCreate(replay, request); !begun.ok()) {
    call->Refuse(begun);
  }
  return call;
}

SessionCall* SessionCall::Append(ServerCore& core, grpc::CallbackServerContext& context,
                                 const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
  auto* const call = new SessionCall(core, Method::kAppendToSession, context, response);
  if (const absl::Status begun = call->BeginAppend(request); !begun.ok()) call->Refuse(begun);
  return call;
}

absl::Status SessionCall::BeginCreate(AskReplay& replay, const grpc::ByteBuffer& bytes) {
  v1::CreateSessionRequest request;
  VNSA_RETURN_IF_ERROR(Read(bytes, request));
  absl::Duration ttl;
  if (request.has_ttl()) {
    const std::optional<absl::Duration> given = FromProto(request.ttl());
    if (!given || *given <= absl::ZeroDuration()) return InvalidField("ttl", "is not above 0");
    ttl = *given;
  }
  // The run's id is the session's, so that a repeat finds it.
  VNSA_ASSIGN_OR_RETURN(AskReplay::Found found,
                        replay.RunFor(core(), absl::StrCat(context().tenant, "/session/"),
                                      request.request_id(), request));
  session_ = absl::StrCat("sessions/", found.run->ask_id());
  answer_ = [](const v1::GetSessionResponse& session) {
    v1::CreateSessionResponse out;
    out.set_session(session.session());
    *out.mutable_prompt() = session.prompt();
    out.set_kv_pages(session.kv_pages());
    *out.mutable_expire_time() = session.expire_time();
    return SerializeMessage(out);
  };
  WaitFor(found.run);
  if (!found.fresh) return absl::OkStatus();
  StartRun(
      core(), context(), QuestionOf(request),
      [&core = core(), tenant = context().tenant, id = found.run->ask_id(),
       ttl](PreparedQuestion& question) {
        return core.sessions.Create(tenant, id, ttl, question.parsed);
      },
      found.run);
  return absl::OkStatus();
}

absl::Status SessionCall::BeginAppend(const grpc::ByteBuffer& bytes) {
  v1::AppendToSessionRequest request;
  VNSA_RETURN_IF_ERROR(Read(bytes, request));
  const auto run = std::make_shared<AskRun>(core(), RandomId());
  session_ = request.session();
  answer_ = [](const v1::GetSessionResponse& session) {
    v1::AppendToSessionResponse out;
    *out.mutable_prompt() = session.prompt();
    out.set_kv_pages(session.kv_pages());
    *out.mutable_expire_time() = session.expire_time();
    return SerializeMessage(out);
  };
  WaitFor(run);
  StartRun(
      core(), context(), QuestionOf(request),
      [&core = core(), tenant = context().tenant, name = session_](PreparedQuestion& question) {
        return core.sessions.Append(tenant, name, question.runtime->model().semantics,
                                    question.parsed);
      },
      run);
  return absl::OkStatus();
}

absl::StatusOr<grpc::ByteBuffer> SessionCall::Answer(const v1::AskResponse&) {
  VNSA_ASSIGN_OR_RETURN(  // it may have been deleted since
      const v1::GetSessionResponse session,
      core().sessions.Get(context().tenant, session_, core().runtime()->model().semantics));
  return answer_(session);
}

}  // namespace videonsa
