#pragma once

#include "server/server_core.h"
#include "videonsa/v1/server.grpc.pb.h"

namespace videonsa {

/// Every method with raw bytes; see raw_message.h.
using RawServerService = v1::ServerService::WithRawCallbackMethod_GetModel<
    v1::ServerService::WithRawCallbackMethod_GetServerStatus<v1::ServerService::Service>>;

/// videonsa.v1.ServerService. Threads: gRPC's; no method waits.
class ServerService : public RawServerService {
 public:
  explicit ServerService(ServerCore& core) : core_(core) {}

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetServerStatus(grpc::CallbackServerContext* context,
                                            const grpc::ByteBuffer* request,
                                            grpc::ByteBuffer* response) override;

 private:
  ServerCore& core_;
};

}  // namespace videonsa
