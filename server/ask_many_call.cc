#include "server/ask_many_call.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/ask_setup.h"
#include "server/random_id.h"
#include "server/raw_message.h"
#include "server/status_conversion.h"

namespace videonsa {
namespace {

constexpr int kMaxQuestions = 32;

bool HasVisual(const v1::Question& question) {
  for (const v1::Turn& turn : question.turns()) {
    for (const v1::Part& part : turn.parts()) {
      if (part.has_clip() || part.has_image()) return true;
    }
  }
  return !question.session().empty();
}

// The shared question with `text` at the end of its open turn.
v1::Question With(const v1::Question& shared, const std::string& text) {
  v1::Question question = shared;
  if (question.turns().empty()) question.add_turns()->set_role(v1::Turn::ROLE_USER);
  question.mutable_turns(question.turns_size() - 1)->add_parts()->set_text(text);
  return question;
}

// All questions of a session are asked beside it, none becomes part of it.
SessionStep PeekStep(ServerCore& core, const CallContext& call, const v1::Question& question) {
  if (question.session().empty()) return nullptr;
  return [&core, tenant = call.tenant, name = question.session(),
          checked = CheckSessionQuestion(question)](
             PreparedQuestion& prepared) -> absl::StatusOr<std::shared_ptr<SessionTurn>> {
    VNSA_RETURN_IF_ERROR(checked);
    return core.sessions.Peek(tenant, name, prepared.parsed);
  };
}

}  // namespace

AskManyCall::AskManyCall(ServerCore& core, grpc::CallbackServerContext& context,
                         const grpc::ByteBuffer& request)
    : core_(core),
      context_(context),
      meter_(core.calls, Method::kAskMany),
      call_(MakeCallContext(core, Method::kAskMany, context)),
      ask_id_(RandomId()) {
  context.AddInitialMetadata("videonsa-ask-id", ask_id_);
  if (absl::Status begun = Begin(request); !begun.ok()) End(begun);
}

absl::Status AskManyCall::CheckQuestions(const v1::AskManyRequest& request) const {
  const int count = request.questions_size();
  if (count < 1 || count > kMaxQuestions) {
    return InvalidField("questions", absl::StrCat("are ", count, ", must be 1 to ", kMaxQuestions));
  }
  const int64_t limit = core_.options.question.max_text_bytes;
  for (int i = 0; i < count; ++i) {
    const auto size = static_cast<int64_t>(request.questions(i).size());
    if (size >= 1 && size <= limit) continue;
    return InvalidField(absl::StrCat("questions[", i, "]"),
                        absl::StrCat("has ", size, " bytes, must be 1 to ", limit));
  }
  if (!HasVisual(request.shared())) {
    return InvalidField("shared.turns", "hold no clip and no picture");
  }
  return absl::OkStatus();
}

absl::Status AskManyCall::Begin(const grpc::ByteBuffer& bytes) {
  VNSA_RETURN_IF_ERROR(call_.refusal);
  v1::AskManyRequest request;
  VNSA_RETURN_IF_ERROR(ParseMessage(bytes, request));
  VNSA_RETURN_IF_ERROR(CheckQuestions(request));
  v1::Question question = With(request.shared(), request.questions(0));
  const SessionStep peek = PeekStep(core_, call_, question);
  absl::StatusOr<PreparedQuestion> prepared = PrepareQuestion(core_, call_, question, peek);
  if (!prepared.ok()) return prepared.status();
  run_ = std::make_shared<AskManyRun>(
      core_, ask_id_,
      std::vector<std::string>(request.questions().begin(), request.questions().end()), this);
  core_.watchdog.Add(run_);
  if (!prepared->needs_fetch) {
    run_->Start(*std::move(prepared));
    return absl::OkStatus();
  }
  // This call may be gone when the clips are there; the run is not.
  FetchQuestion(
      core_, call_, std::move(question), {.cancelled = [run = run_] { return run->ended(); }},
      [run = run_](absl::StatusOr<PreparedQuestion> fetched) {
        if (!fetched.ok()) return run->Cancel(fetched.status());
        run->Start(*std::move(fetched));
      },
      peek);
  return absl::OkStatus();
}

void AskManyCall::Write(const v1::AskManyResponse& answer) {
  message_ = SerializeMessage(answer);
  StartWrite(&message_);
}

void AskManyCall::End(const absl::Status& status) {
  meter_.SetCode(static_cast<int>(status.code()));
  LogEnded(call_, ask_id_, status, core_.clock.Monotonic() - call_.received_at);
  Finish(ToGrpcStatus(status, call_.request_id));
}

void AskManyCall::Cut() { context_.TryCancel(); }

void AskManyCall::OnWriteDone(bool ok) { run_->OnWritten(ok); }

void AskManyCall::OnCancel() {
  if (run_ != nullptr) run_->Cancel(absl::CancelledError("the caller left"));
}

void AskManyCall::OnDone() {
  if (run_ != nullptr) run_->Detach();
  delete this;
}

}  // namespace videonsa
