#include "server/admin_service.h"

#include "runtime/base/error.h"
#include "runtime/telemetry/log.h"
#include "server/proto_time.h"
#include "server/status_conversion.h"
#include "server/unary_call.h"

namespace videonsa {

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  return ServeUnary<admin::v1::DrainRequest>(
      core_, Method::kDrain, &core_.probing, context, request, response,
      [this](const CallContext&,
             const admin::v1::DrainRequest& in) -> absl::StatusOr<admin::v1::DrainResponse> {
        const std::optional<absl::Duration> timeout = FromProto(in.timeout());
        if (!timeout || *timeout < absl::ZeroDuration()) {
          return InvalidField("timeout", "must be a duration of at least 0");
        }
        admin::v1::DrainResponse out;
        out.set_remaining(drain_(*timeout));
        return out;
      });
}

grpc::ServerUnaryReactor* AdminService::SetLogLevel(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  return ServeUnary<admin::v1::SetLogLevelRequest>(
      core_, Method::kSetLogLevel, nullptr, context, request, response,
      [](const CallContext&, const admin::v1::SetLogLevelRequest& in)
          -> absl::StatusOr<admin::v1::SetLogLevelResponse> {
        LogLevel level = LogLevel::kInfo;
        if (!ParseLogLevel(in.level(), &level)) {
          return InvalidField("level", "must be debug, info, warning or error");
        }
        admin::v1::SetLogLevelResponse out;
        out.set_previous_level(LogLevelName(videonsa::SetLogLevel(level)));
        return out;
      });
}

grpc::ServerUnaryReactor* AdminService::Profile(grpc::CallbackServerContext* context,
                                                const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* response) {
  return ServeUnary<admin::v1::ProfileRequest>(
      core_, Method::kProfile, nullptr, context, request, response,
      [](const CallContext&, const admin::v1::ProfileRequest&) {
        return absl::StatusOr<admin::v1::ProfileResponse>(NotImplemented("Profile"));
      });
}

grpc::ServerUnaryReactor* AdminService::FlushCaches(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  return ServeUnary<admin::v1::FlushCachesRequest>(
      core_, Method::kFlushCaches, nullptr, context, request, response,
      [](const CallContext&, const admin::v1::FlushCachesRequest&) {
        return absl::StatusOr<admin::v1::FlushCachesResponse>(NotImplemented("FlushCaches"));
      });
}

}  // namespace videonsa
