#include "server/ask_call.h"

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "server/ask_setup.h"
#include "server/random_id.h"
#include "server/raw_message.h"
#include "server/status_conversion.h"

namespace videonsa {
namespace {

constexpr size_t kMaxRequestIdBytes = 64;

}  // namespace

AskCall::AskCall(ServerCore& core, AskReplay& replay, grpc::CallbackServerContext& context,
                 const grpc::ByteBuffer& request, grpc::ByteBuffer* response)
    : core_(core),
      meter_(core.calls, Method::kAsk),
      call_(MakeCallContext(core, Method::kAsk, context)),
      response_(response) {
  Begin(context, replay, request);
}

void AskCall::Begin(grpc::CallbackServerContext& context, AskReplay& replay,
                    const grpc::ByteBuffer& bytes) {
  if (!call_.refusal.ok()) return Deliver(call_.refusal, nullptr);
  v1::AskRequest request;
  if (absl::Status parsed = ParseMessage(bytes, request); !parsed.ok()) {
    return Deliver(parsed, nullptr);
  }
  if (request.request_id().size() > kMaxRequestIdBytes) {
    return Deliver(InvalidField("request_id", absl::StrCat("has ", request.request_id().size(),
                                                           " bytes, limit ", kMaxRequestIdBytes)),
                   nullptr);
  }
  const auto make = [this] { return std::make_shared<AskRun>(core_, RandomId()); };
  AskReplay::Found found{nullptr, true};
  if (request.request_id().empty()) {
    found.run = make();
  } else {
    absl::StatusOr<AskReplay::Found> shared =
        replay.FindOrMake(absl::StrCat(call_.tenant, "/", request.request_id()),
                          Sha256Of(request.question().SerializeAsString()), make);
    if (!shared.ok()) return Deliver(shared.status(), nullptr);
    found = *std::move(shared);
  }
  run_ = found.run;
  ask_id_ = run_->ask_id();
  context.AddInitialMetadata("videonsa-ask-id", ask_id_);
  run_->Join(this);
  if (!found.fresh) return;
  StartRun(core_, call_, std::move(*request.mutable_question()), nullptr, found.run);
}

void AskCall::Deliver(const absl::Status& status, const v1::AskResponse* response) {
  meter_.SetCode(static_cast<int>(status.code()));
  LogEnded(call_, ask_id_, status, core_.clock.Monotonic() - call_.received_at);
  if (response != nullptr) *response_ = SerializeMessage(*response);
  Finish(ToGrpcStatus(status, call_.request_id));
}

void AskCall::OnCancel() {
  if (run_ == nullptr || !run_->Leave(this)) return;  // Deliver was called
  Deliver(absl::CancelledError("the caller left"), nullptr);
}

}  // namespace videonsa
