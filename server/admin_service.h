#pragma once

#include <functional>

#include "server/server_core.h"
#include "videonsa/admin/v1/admin.grpc.pb.h"

namespace videonsa {

/// Every method with raw bytes; see raw_message.h.
using RawAdminService = admin::v1::AdminService::WithRawCallbackMethod_Drain<
    admin::v1::AdminService::WithRawCallbackMethod_SetLogLevel<
        admin::v1::AdminService::WithRawCallbackMethod_Profile<
            admin::v1::AdminService::WithRawCallbackMethod_FlushCaches<
                admin::v1::AdminService::Service>>>>;

/// videonsa.admin.v1.AdminService, on the admin listener only. Threads: gRPC's.
class AdminService : public RawAdminService {
 public:
  /// Refuses new work, waits for the old until the timeout, returns how many questions still run.
  using DrainFunction = std::function<int(absl::Duration timeout)>;

  AdminService(ServerCore& core, DrainFunction drain) : core_(core), drain_(std::move(drain)) {}

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* SetLogLevel(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Profile(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* FlushCaches(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;

 private:
  ServerCore& core_;
  const DrainFunction drain_;
};

}  // namespace videonsa
