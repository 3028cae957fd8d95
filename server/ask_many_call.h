#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "server/ask_many_run.h"
#include "server/call_context.h"
#include "server/call_metrics.h"
#include "server/server_core.h"

namespace videonsa {

/// One AskMany call. Deletes itself in OnDone.
class AskManyCall : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public AskManyRun::Writer {
 public:
  AskManyCall(ServerCore& core, grpc::CallbackServerContext& context,
              const grpc::ByteBuffer& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  absl::Status Begin(const grpc::ByteBuffer& bytes);
  absl::Status CheckQuestions(const v1::AskManyRequest& request) const;

  void Write(const v1::AskManyResponse& answer) override;
  void End(const absl::Status& status) override;
  void Cut() override;

  ServerCore& core_;
  grpc::CallbackServerContext& context_;
  CallMeter meter_;
  const CallContext call_;
  const std::string ask_id_;
  grpc::ByteBuffer message_;  // of the write in flight
  std::shared_ptr<AskManyRun> run_;
};

}  // namespace videonsa
