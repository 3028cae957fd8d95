#include "client/call_options.h"

#include "absl/strings/str_cat.h"

namespace videonsa::client {

void Cancellation::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* context : contexts_) context->TryCancel();
}

bool Cancellation::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

void Cancellation::Add(grpc::ClientContext* context) {
  absl::MutexLock lock(&mutex_);
  contexts_.insert(context);
  if (cancelled_) context->TryCancel();
}

void Cancellation::Remove(grpc::ClientContext* context) {
  absl::MutexLock lock(&mutex_);
  contexts_.erase(context);
}

ScopedCall::ScopedCall(const CallOptions& options) : cancellation_(options.cancellation) {
  if (options.timeout != absl::InfiniteDuration()) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
  }
  if (!options.bearer_token.empty()) {
    context_.AddMetadata("authorization", absl::StrCat("Bearer ", options.bearer_token));
  }
  if (cancellation_ != nullptr) cancellation_->Add(&context_);
}

ScopedCall::~ScopedCall() {
  if (cancellation_ != nullptr) cancellation_->Remove(&context_);
}

}  // namespace videonsa::client
