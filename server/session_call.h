#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "server/ask_replay.h"
#include "server/ask_run.h"
#include "server/ask_setup.h"
#include "server/call_context.h"
#include "server/call_metrics.h"
#include "server/server_core.h"

namespace videonsa {

/// A call that prefills what a session begins with or goes on with: CreateSession and
/// AppendToSession. Deletes itself in OnDone.
///
/// Invariants: Finish is called once: by Deliver, or by OnCancel if the run let the call go.
class SessionCall : public grpc::ServerUnaryReactor, public AskRun::Waiter {
 public:
  static SessionCall* Create(ServerCore& core, AskReplay& replay,
                             grpc::CallbackServerContext& context, const grpc::ByteBuffer& request,
                             grpc::ByteBuffer* response);
  static SessionCall* Append(ServerCore& core, grpc::CallbackServerContext& context,
                             const grpc::ByteBuffer& request, grpc::ByteBuffer* response);

  void OnCancel() override;
  void OnDone() override { delete this; }
  void Deliver(const absl::Status& status, const v1::AskResponse* response) override;

 private:
  /// Makes the answer to the caller from the session as it is now.
  using Answer = std::function<grpc::ByteBuffer(const v1::GetSessionResponse& session)>;

  SessionCall(ServerCore& core, Method method, grpc::CallbackServerContext& context,
              grpc::ByteBuffer* response);
  void BeginCreate(AskReplay& replay, const grpc::ByteBuffer& bytes);
  void BeginAppend(const grpc::ByteBuffer& bytes);

  ServerCore& core_;
  CallMeter meter_;
  const CallContext call_;
  grpc::ByteBuffer* const response_;  // gRPC's, valid until Finish
  std::string session_;               // "sessions/{id}"
  Answer answer_;
  std::shared_ptr<AskRun> run_;
};

}  // namespace videonsa
