#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/error.h"
#include "server/open_call.h"
#include "server/raw_message.h"
#include "server/server_core.h"
#include "server/worker_pool.h"

namespace videonsa {

/// A unary call whose work may outlive it: the caller may leave while a worker is busy for it.
///
/// Invariants: Finish is called exactly once: by the first of End and OnCancel.
/// Lifetime: gRPC's until OnDone; the worker holds only the shared Link.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  /// What a worker holds. Threads: any.
  class Link {
   public:
    /// Ends the call with `result`, unless it has ended.
    void End(absl::StatusOr<grpc::ByteBuffer> result);

   private:
    friend class UnaryCall;
    absl::Mutex mutex_;
    UnaryCall* call_ ABSL_GUARDED_BY(mutex_) = nullptr;  // null once finished
  };

  UnaryCall(ServerCore& core, Method method, grpc::CallbackServerContext& context,
            grpc::ByteBuffer* response);

  const CallContext& context() const { return call_.context(); }
  /// Requires: called before anything else that may end the call.
  template <typename Request>
  absl::Status Read(const grpc::ByteBuffer& bytes, Request& request) {
    return call_.Read(bytes, request);
  }
  std::shared_ptr<Link> link() const { return link_; }

  void OnCancel() override;
  void OnDone() override { delete this; }

 private:
  OpenCall call_;
  grpc::ByteBuffer* const response_;  // gRPC's, valid until Finish
  const std::shared_ptr<Link> link_;
};

/// Ends a call that is refused, else parses a `Request`, runs `handle(const CallContext&, const
/// Request&) -> StatusOr<Response>` and ends the call. With a pool, `handle` runs there and may
/// wait; without, it must not wait.
template <typename Request, typename Handle>
grpc::ServerUnaryReactor* ServeUnary(ServerCore& core, Method method, WorkerPool* pool,
                                     grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* bytes, grpc::ByteBuffer* response,
                                     Handle handle) {
  auto* const call = new UnaryCall(core, method, *context, response);
  const std::shared_ptr<UnaryCall::Link> link = call->link();
  auto request = std::make_shared<Request>();
  if (const absl::Status read = call->Read(*bytes, *request); !read.ok()) {
    link->End(read);
    return call;
  }
  auto work = [link, request, caller = call->context(), handle = std::move(handle)] {
    auto result = handle(caller, static_cast<const Request&>(*request));
    if (result.ok()) {
      link->End(SerializeMessage(*result));
    } else {
      link->End(result.status());
    }
  };
  if (pool == nullptr) {
    work();
  } else if (!pool->TrySubmit(std::move(work))) {
    link->End(MakeError(absl::StatusCode::kUnavailable,
                        ErrorInfo{.reason = "QUEUE_FULL", .retry_after = absl::Seconds(1)},
                        "too many calls wait for the disk or the prober"));
  }
  return call;
}

}  // namespace videonsa
