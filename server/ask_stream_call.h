#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "server/ask_setup.h"
#include "server/call_context.h"
#include "server/call_metrics.h"
#include "server/response_stream.h"
#include "server/server_core.h"

namespace videonsa {

/// One AskStream call. Deletes itself in OnDone.
class AskStreamCall : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                      public ResponseStream::Writer {
 public:
  AskStreamCall(ServerCore& core, grpc::CallbackServerContext& context,
                const grpc::ByteBuffer& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Begin(const grpc::ByteBuffer& bytes);
  void Refuse(const absl::Status& status);
  static void Submit(ServerCore& core, PreparedQuestion& prepared,
                     const std::shared_ptr<ResponseStream>& stream);

  void Write(const v1::AskStreamResponse& event) override;
  void End(const absl::Status& status) override;
  void Cut() override;

  ServerCore& core_;
  grpc::CallbackServerContext& context_;
  CallMeter meter_;
  const CallContext call_;
  const std::string ask_id_;
  grpc::ByteBuffer message_;  // of the write in flight
  std::shared_ptr<ResponseStream> stream_;
};

}  // namespace videonsa
