#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/time/time.h"
#include "runtime/base/clock.h"
#include "server/options.h"

namespace videonsa {

/// Who calls, under which id and until when. Made first thing in every handler.
struct CallContext {
  std::string tenant;          ///< owner of everything the call touches; never empty
  std::string request_id;      ///< caller's x-request-id if well-formed, else ours
  absl::Time received;         ///< wall clock
  absl::Duration received_at;  ///< monotonic
  /// Monotonic reading at which work must be done: a little before the caller's own deadline, so
  /// that a partial answer still reaches it.
  absl::Duration deadline;
};

/// Reads metadata and deadline and sends x-request-id back in the initial metadata.
CallContext MakeCallContext(grpc::CallbackServerContext& context, const Clock& clock,
                            const ServerOptions& options);

}  // namespace videonsa
