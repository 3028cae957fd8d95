#include "server/session_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "server/proto_time.h"
#include "server/random_id.h"
#include "server/raw_message.h"
#include "server/status_conversion.h"

namespace videonsa {
namespace {

constexpr size_t kMaxRequestIdBytes = 64;

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

SessionCall::SessionCall(ServerCore& core, Method method, grpc::CallbackServerContext& context,
                         grpc::ByteBuffer* response)
    : core_(core),
      meter_(core.calls, method),
      call_(MakeCallContext(core, method, context)),
      response_(response) {}

SessionCall* SessionCall::Create(ServerCore& core, AskReplay& replay,
                                 grpc::CallbackServerContext& context,
                                 const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
  auto* const call = new SessionCall(core, Method::kCreateSession, context, response);
  call->BeginCreate(replay, request);
  return call;
}

SessionCall* SessionCall::Append(ServerCore& core, grpc::CallbackServerContext& context,
                                 const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
  auto* const call = new SessionCall(core, Method::kAppendToSession, context, response);
  call->BeginAppend(request);
  return call;
}

void SessionCall::BeginCreate(AskReplay& replay, const grpc::ByteBuffer& bytes) {
  if (!call_.refusal.ok()) return Deliver(call_.refusal, nullptr);
  v1::CreateSessionRequest request;
  if (absl::Status parsed = ParseMessage(bytes, request); !parsed.ok()) {
    return Deliver(parsed, nullptr);
  }
  if (request.request_id().size() > kMaxRequestIdBytes) {
    return Deliver(InvalidField("request_id", absl::StrCat("has ", request.request_id().size(),
                                                           " bytes, limit ", kMaxRequestIdBytes)),
                   nullptr);
  }
  absl::Duration ttl;
  if (request.has_ttl()) {
    const std::optional<absl::Duration> given = FromProto(request.ttl());
    if (!given || *given <= absl::ZeroDuration()) {
      return Deliver(InvalidField("ttl", "is not above 0"), nullptr);
    }
    ttl = *given;
  }
  // The run's id is the session's, so that a repeat finds it.
  const auto make = [this] { return std::make_shared<AskRun>(core_, RandomId()); };
  AskReplay::Found found{nullptr, true};
  if (request.request_id().empty()) {
    found.run = make();
  } else {
    const std::string key = absl::StrCat(call_.tenant, "/session/", request.request_id());
    absl::StatusOr<AskReplay::Found> shared =
        replay.FindOrMake(key, Sha256Of(request.SerializeAsString()), make);
    if (!shared.ok()) return Deliver(shared.status(), nullptr);
    found = *std::move(shared);
  }
  run_ = found.run;
  session_ = absl::StrCat("sessions/", run_->ask_id());
  answer_ = [](const v1::GetSessionResponse& session) {
    v1::CreateSessionResponse out;
    out.set_session(session.session());
    *out.mutable_prompt() = session.prompt();
    out.set_kv_pages(session.kv_pages());
    *out.mutable_expire_time() = session.expire_time();
    return SerializeMessage(out);
  };
  run_->Join(this);
  if (!found.fresh) return;
  StartRun(
      core_, call_, QuestionOf(request),
      [&core = core_, tenant = call_.tenant, id = found.run->ask_id(),
       ttl](PreparedQuestion& question) {
        return core.sessions.Create(tenant, id, ttl, question.parsed);
      },
      found.run);
}

void SessionCall::BeginAppend(const grpc::ByteBuffer& bytes) {
  if (!call_.refusal.ok()) return Deliver(call_.refusal, nullptr);
  v1::AppendToSessionRequest request;
  if (absl::Status parsed = ParseMessage(bytes, request); !parsed.ok()) {
    return Deliver(parsed, nullptr);
  }
  const auto run = std::make_shared<AskRun>(core_, RandomId());
  run_ = run;
  session_ = request.session();
  answer_ = [](const v1::GetSessionResponse& session) {
    v1::AppendToSessionResponse out;
    *out.mutable_prompt() = session.prompt();
    out.set_kv_pages(session.kv_pages());
    *out.mutable_expire_time() = session.expire_time();
    return SerializeMessage(out);
  };
  run->Join(this);
  StartRun(
      core_, call_, QuestionOf(request),
      [&core = core_, tenant = call_.tenant, name = session_](PreparedQuestion& question) {
        return core.sessions.Append(tenant, name, question.runtime->model().semantics,
                                    question.parsed);
      },
      run);
}

void SessionCall::Deliver(const absl::Status& given, const v1::AskResponse* response) {
  absl::Status status = given;
  if (response != nullptr) {
    const absl::StatusOr<v1::GetSessionResponse> session =
        core_.sessions.Get(call_.tenant, session_, core_.runtime()->model().semantics);
    status = session.status();  // it may have been deleted since
    if (session.ok()) *response_ = answer_(*session);
  }
  meter_.SetCode(static_cast<int>(status.code()));
  LogEnded(call_, session_, status, core_.clock.Monotonic() - call_.received_at);
  Finish(ToGrpcStatus(status, call_.request_id));
}

void SessionCall::OnCancel() {
  if (run_ == nullptr || !run_->Leave(this)) return;  // Deliver was called
  Deliver(absl::CancelledError("the caller left"), nullptr);
}

}  // namespace videonsa
