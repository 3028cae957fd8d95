#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/ask_run.h"
#include "server/open_call.h"
#include "server/raw_message.h"
#include "server/server_core.h"

namespace videonsa {

/// A unary call that waits for an AskRun. Deletes itself in OnDone.
///
/// Invariants: Finish is called once: by Deliver, or by OnCancel if the run let the call go.
class RunCall : public grpc::ServerUnaryReactor, public AskRun::Waiter {
 public:
  void OnCancel() override;
  void OnDone() override { delete this; }
  void Deliver(const absl::Status& status, const v1::AskResponse* response) override;

 protected:
  RunCall(ServerCore& core, Method method, grpc::CallbackServerContext& context,
          grpc::ByteBuffer* response)
      : core_(core), call_(core, method, context), response_(response) {}

  /// Parses `bytes` into `request`. Errors: the call's refusal, INVALID_ARGUMENT.
  template <typename Request>
  absl::Status Read(const grpc::ByteBuffer& bytes, Request& request) {
    return call_.Read(bytes, request);
  }
  /// The run that answers from now on. Requires: called once, in the constructor of the call.
  void WaitFor(std::shared_ptr<AskRun> run);
  /// Ends a call that waits for no run.
  void Refuse(const absl::Status& status) { Deliver(status, nullptr); }
  /// The answer to the caller, once the run has ended well. Threads: the run's.
  virtual absl::StatusOr<grpc::ByteBuffer> Answer(const v1::AskResponse& response) = 0;

  ServerCore& core() const { return core_; }
  const CallContext& context() const { return call_.context(); }

 private:
  ServerCore& core_;
  OpenCall call_;
  grpc::ByteBuffer* const response_;  // gRPC's, valid until Finish
  std::shared_ptr<AskRun> run_;
};

}  // namespace videonsa
