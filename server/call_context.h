#pragma once

#include <grpcpp/server_context.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/method.h"
#include "server/trace/trace_context.h"

namespace videonsa {

class ServerCore;

/// Who calls, under which id and until when. Made first thing in every handler.
struct CallContext {
  /// Why the call must end at once: no right to it, or a quota is used up. Everything else but
  /// tenant and scopes is set even then; the tenant is empty, which owns nothing and may run
  /// nothing.
  absl::Status refusal;
  std::string tenant;  ///< owner of everything the call touches
  Scopes scopes = 0;
  std::string request_id;  ///< caller's x-request-id if well-formed, else ours
  Method method = Method::kAsk;
  TraceContext trace;          ///< from the caller's traceparent
  absl::Time received;         ///< wall clock
  absl::Duration received_at;  ///< monotonic
  /// Monotonic reading at which work must be done: a little before the caller's own deadline, so
  /// that a partial answer still reaches it.
  absl::Duration deadline;
  std::shared_ptr<void> slot;  ///< the call's place in its tenant's quotas
};

/// Reads metadata and deadline, says who the caller is, whether it may and within its quotas. The
/// one point that every call of every service passes; its reactor ends at once with `refusal`
/// unless that is OK.
CallContext MakeCallContext(ServerCore& core, Method method,
                            const grpc::CallbackServerContext& context);

}  // namespace videonsa
