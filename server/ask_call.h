#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "server/ask_replay.h"
#include "server/ask_run.h"
#include "server/ask_setup.h"
#include "server/call_context.h"
#include "server/call_metrics.h"
#include "server/server_core.h"

namespace videonsa {

/// One Ask call. Deletes itself in OnDone.
///
/// Invariants: Finish is called once: by Deliver, or by OnCancel if the run let the call go.
class AskCall : public grpc::ServerUnaryReactor, public AskRun::Waiter {
 public:
  AskCall(ServerCore& core, AskReplay& replay, grpc::CallbackServerContext& context,
          const grpc::ByteBuffer& request, grpc::ByteBuffer* response);

  void OnCancel() override;
  void OnDone() override { delete this; }
  void Deliver(const absl::Status& status, const v1::AskResponse* response) override;

 private:
  void Begin(grpc::CallbackServerContext& context, AskReplay& replay,
             const grpc::ByteBuffer& bytes);

  ServerCore& core_;
  CallMeter meter_;
  const CallContext call_;
  grpc::ByteBuffer* const response_;  // gRPC's, valid until Finish
  std::string ask_id_;
  std::shared_ptr<AskRun> run_;
};

}  // namespace videonsa
