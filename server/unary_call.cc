#include "server/unary_call.h"

namespace videonsa {

UnaryCall::UnaryCall(ServerCore& core, Method method, grpc::CallbackServerContext& context,
                     grpc::ByteBuffer* response)
    : call_(core, method, context), response_(response), link_(std::make_shared<Link>()) {
  absl::MutexLock lock(&link_->mutex_);
  link_->call_ = this;
}

void UnaryCall::Link::End(absl::StatusOr<grpc::ByteBuffer> result) {
  absl::MutexLock lock(&mutex_);
  if (call_ == nullptr) return;
  UnaryCall* const call = std::exchange(call_, nullptr);
  if (result.ok()) {
    call->call_.Answering(*result);
    *call->response_ = *std::move(result);
  }
  call->Finish(call->call_.End(result.status()));
}

void UnaryCall::OnCancel() { link_->End(absl::CancelledError("the caller left")); }

}  // namespace videonsa
