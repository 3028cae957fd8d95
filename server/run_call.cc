#include "server/run_call.h"

#include <utility>

namespace videonsa {

void RunCall::WaitFor(std::shared_ptr<AskRun> run) {
  run_ = std::move(run);
  call_.SetAskId(run_->ask_id());
  run_->Join(this);
}

void RunCall::Deliver(const absl::Status& given, const v1::AskResponse* response) {
  absl::Status status = given;
  if (response != nullptr) {
    absl::StatusOr<grpc::ByteBuffer> answer = Answer(*response);
    status = answer.status();
    if (answer.ok()) {
      call_.Answering(*answer);
      *response_ = *std::move(answer);
    }
  }
  Finish(call_.End(status));
}

void RunCall::OnCancel() {
  if (run_ == nullptr || !run_->Leave(this)) return;  // Deliver was called
  Deliver(absl::CancelledError("the caller left"), nullptr);
}

}  // namespace videonsa
