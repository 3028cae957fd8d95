#include "client/openai/ask_session.h"

#include <deque>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/error.h"
#include "grpcpp/client_context.h"

namespace videonsa::openai {
namespace {

std::string RequestIdOf(const grpc::ClientContext& context) {
  const auto& metadata = context.GetServerInitialMetadata();
  const auto found = metadata.find("x-request-id");
  if (found == metadata.end()) return "";
  return std::string(found->second.data(), found->second.size());
}

// The call as gRPC sees it; owned by itself until OnDone.
class Reader final : public grpc::ClientReadReactor<v1::AskStreamResponse> {
 public:
  Reader(v1::AskStreamRequest request, const CallHeaders& headers) : request_(std::move(request)) {
    for (const auto& [name, value] : headers.metadata) context_.AddMetadata(name, value);
    if (headers.timeout != absl::InfiniteDuration()) {
      context_.set_deadline(absl::ToChronoTime(absl::Now() + headers.timeout));
    }
  }

  void Begin(v1::VideoQaService::StubInterface& stub, std::shared_ptr<Reader> self) {
    self_ = std::move(self);
    stub.async()->AskStream(&context_, &request_, this);
    StartRead(&incoming_);
    StartCall();
  }

  AskSession::Wait Next(absl::Duration timeout, v1::AskStreamResponse& event) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(this, &Reader::HasNews), timeout);
    if (events_.empty()) return done_ ? AskSession::Wait::kEnd : AskSession::Wait::kTimeout;
    event = std::move(events_.front());
    events_.pop_front();
    return AskSession::Wait::kEvent;
  }

  absl::Status status() const {
    absl::MutexLock lock(&mutex_);
    return status_;
  }
  std::string request_id() const {
    absl::MutexLock lock(&mutex_);
    return request_id_;
  }
  void Cancel() { context_.TryCancel(); }

 private:
  void OnReadInitialMetadataDone(bool ok) override {
    if (!ok) return;
    absl::MutexLock lock(&mutex_);
    request_id_ = RequestIdOf(context_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      absl::MutexLock lock(&mutex_);
      events_.push_back(std::move(incoming_));
    }
    incoming_.Clear();
    StartRead(&incoming_);
  }
  void OnDone(const grpc::Status& status) override {
    // Goes last: it may hold the last reference, and the lock lies in the object.
    const std::shared_ptr<Reader> self = std::move(self_);
    absl::MutexLock lock(&mutex_);
    status_ = client::FromGrpc(status);
    done_ = true;
  }
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return done_ || !events_.empty(); }

  grpc::ClientContext context_;
  v1::AskStreamRequest request_;
  v1::AskStreamResponse incoming_;  // gRPC's between StartRead and OnReadDone
  std::shared_ptr<Reader> self_;    // set by Begin, given up by OnDone
  mutable absl::Mutex mutex_;
  std::deque<v1::AskStreamResponse> events_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::string request_id_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

class Session final : public AskSession {
 public:
  explicit Session(std::shared_ptr<Reader> reader) : reader_(std::move(reader)) {}
  ~Session() override { reader_->Cancel(); }

  Wait Next(absl::Duration timeout, v1::AskStreamResponse& event) override {
    return reader_->Next(timeout, event);
  }
  absl::Status status() const override { return reader_->status(); }
  std::string request_id() const override { return reader_->request_id(); }
  void Cancel() override { reader_->Cancel(); }

 private:
  const std::shared_ptr<Reader> reader_;
};

}  // namespace

std::shared_ptr<AskSession> AskSession::Start(v1::VideoQaService::StubInterface& stub,
                                              v1::AskStreamRequest request,
                                              const CallHeaders& headers) {
  auto reader = std::make_shared<Reader>(std::move(request), headers);
  reader->Begin(stub, reader);
  return std::make_shared<Session>(std::move(reader));
}

}  // namespace videonsa::openai
