#include "server/ask_call.h"

#include <utility>

#include "runtime/base/status_macros.h"
#include "server/ask_setup.h"

namespace videonsa {

AskCall::AskCall(ServerCore& core, AskReplay& replay, grpc::CallbackServerContext& context,
                 const grpc::ByteBuffer& request, grpc::ByteBuffer* response)
    : RunCall(core, Method::kAsk, context, response) {
  if (const absl::Status begun = Begin(replay, request); !begun.ok()) Refuse(begun);
}

absl::Status AskCall::Begin(AskReplay& replay, const grpc::ByteBuffer& bytes) {
  v1::AskRequest request;
  VNSA_RETURN_IF_ERROR(Read(bytes, request));
  VNSA_ASSIGN_OR_RETURN(AskReplay::Found found,
                        replay.RunFor(core(), absl::StrCat(context().tenant, "/"),
                                      request.request_id(), request.question()));
  WaitFor(found.run);
  if (found.fresh) {
    StartRun(core(), context(), std::move(*request.mutable_question()), nullptr, found.run);
  }
  return absl::OkStatus();
}

}  // namespace videonsa
