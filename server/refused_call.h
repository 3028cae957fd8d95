#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "server/call_context.h"
#include "server/server_core.h"
#include "server/status_conversion.h"

namespace videonsa {

/// A server-streaming call that ends at once with an error.
class RefusedStream : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  RefusedStream(ServerCore& core, Method method, grpc::CallbackServerContext& context,
                const absl::Status& status)
      : meter_(core.calls, method) {
    const CallContext call = MakeCallContext(core, method, context);
    const absl::Status& end = call.refusal.ok() ? status : call.refusal;
    meter_.SetCode(static_cast<int>(end.code()));
    Finish(ToGrpcStatus(end, call.request_id));
  }
  void OnDone() override { delete this; }

 private:
  CallMeter meter_;
};

}  // namespace videonsa
