#pragma once

#include <memory>
#include <set>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"

namespace videonsa::client {

/// Stops calls from another thread (Ctrl-C, a window that closes).
///
/// Threads: any. Cancel is final: calls begun later are cancelled at once.
class Cancellation {
 public:
  void Cancel();
  bool cancelled() const;

 private:
  friend class ScopedCall;
  void Add(grpc::ClientContext* context);
  void Remove(grpc::ClientContext* context);

  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mutex_);
};

/// What every call takes.
struct CallOptions {
  /// From now to the end of the call. Infinite means that the server's default holds.
  absl::Duration timeout = absl::InfiniteDuration();
  /// May be null. Must outlive the call.
  Cancellation* cancellation = nullptr;
  /// Sent as "authorization: Bearer …" when not empty.
  std::string bearer_token;
};

/// A grpc::ClientContext with deadline, token and cancellation applied.
class ScopedCall {
 public:
  explicit ScopedCall(const CallOptions& options);
  ~ScopedCall();
  ScopedCall(const ScopedCall&) = delete;
  ScopedCall& operator=(const ScopedCall&) = delete;

  grpc::ClientContext* context() { return &context_; }

 private:
  grpc::ClientContext context_;
  Cancellation* cancellation_;
};

}  // namespace videonsa::client
