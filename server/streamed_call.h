#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "server/open_call.h"
#include "server/raw_message.h"
#include "server/stream_writer.h"

namespace videonsa {

/// A call that answers with a stream of `Message`, fed by a source that may outlive it. Deletes
/// itself in OnDone.
///
/// Invariants: Finish is called once: by End, of the source or, if it has none yet, of the call.
template <typename Message>
class StreamedCall : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                     public StreamWriter<Message> {
 public:
  void OnWriteDone(bool ok) override { source_->OnWritten(ok); }
  void OnCancel() override {
    if (source_ != nullptr) source_->Cancel(absl::CancelledError("the caller left"));
  }
  void OnDone() override {
    if (source_ != nullptr) source_->Detach();
    delete this;
  }

  void Write(const Message& message) override {
    message_ = SerializeMessage(message);
    call_.Answering(message_);
    StartWrite(&message_);
  }
  void End(const absl::Status& status) override { Finish(call_.End(status)); }
  void Cut() override { call_.Cut(); }

 protected:
  StreamedCall(ServerCore& core, Method method, grpc::CallbackServerContext& context)
      : call_(core, method, context) {}
  ~StreamedCall() override = default;

  OpenCall& call() { return call_; }
  const CallContext& context() const { return call_.context(); }
  /// From now on `source` writes and ends. Requires: called in the constructor.
  void SetSource(std::shared_ptr<StreamSource> source) { source_ = std::move(source); }

 private:
  OpenCall call_;
  grpc::ByteBuffer message_;  // of the write in flight
  std::shared_ptr<StreamSource> source_;
};

}  // namespace videonsa
