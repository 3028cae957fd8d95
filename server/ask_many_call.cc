#include "server/ask_many_call.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/ask_setup.h"
#include "server/random_id.h"

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

absl::Status CheckQuestions(const v1::AskManyRequest& request, int64_t limit) {
  const int count = request.questions_size();
  if (count < 1 || count > kMaxQuestions) {
    return InvalidField("questions", absl::StrCat("are ", count, ", must be 1 to ", kMaxQuestions));
  }
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

}  // namespace

AskManyCall::AskManyCall(ServerCore& core, grpc::CallbackServerContext& context,
                         const grpc::ByteBuffer& request)
    : StreamedCall(core, Method::kAskMany, context) {
  if (const absl::Status begun = Begin(core, request); !begun.ok()) End(begun);
}

absl::Status AskManyCall::Begin(ServerCore& core, const grpc::ByteBuffer& bytes) {
  v1::AskManyRequest request;
  VNSA_RETURN_IF_ERROR(call().Read(bytes, request));
  VNSA_RETURN_IF_ERROR(CheckQuestions(request, core.options.question.max_text_bytes));
  v1::Question question = With(request.shared(), request.questions(0));
  const SessionStep peek = PeekStep(core, context(), question);
  VNSA_ASSIGN_OR_RETURN(PreparedQuestion prepared,
                        PrepareQuestion(core, context(), question, peek));
  const std::string ask_id = RandomId();
  const auto run = std::make_shared<AskManyRun>(
      core, ask_id,
      std::vector<std::string>(request.questions().begin(), request.questions().end()), this);
  call().SetAskId(ask_id);
  SetSource(run);
  core.watchdog.Add(run);
  if (!prepared.needs_fetch) {
    run->Start(std::move(prepared));
    return absl::OkStatus();
  }
  // This call may be gone when the clips are there; the run is not.
  FetchQuestion(
      core, context(), std::move(question), {.cancelled = [run] { return run->ended(); }},
      [run](absl::StatusOr<PreparedQuestion> fetched) {
        if (!fetched.ok()) return run->Cancel(fetched.status());
        run->Start(*std::move(fetched));
      },
      peek);
  return absl::OkStatus();
}

}  // namespace videonsa
