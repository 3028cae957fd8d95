#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/status.h"
#include "server/call_context.h"
#include "server/call_metrics.h"
#include "server/raw_message.h"
#include "server/server_core.h"

namespace videonsa {

/// A call from its arrival to its end: who calls, what it is counted as, and the ids it goes by.
///
/// The ids (x-request-id, traceresponse, videonsa-ask-id) go before the first message. A call that
/// fails before it has one carries them in its trailers: with metadata in front, gRPC's clients
/// take a refused call for one that is being answered and never retry it. Advice to retry goes
/// there too (grpc-retry-pushback-ms), so that a client's retry policy waits as long as RetryInfo
/// says.
///
/// Threads: one at a time. Lifetime: a part of its reactor; the gRPC context outlives it.
class OpenCall {
 public:
  OpenCall(ServerCore& core, Method method, grpc::CallbackServerContext& context);

  const CallContext& context() const { return context_; }

  /// Names the answer, for the caller and the log. Requires: called before Answering and End.
  void SetAskId(std::string ask_id) { ask_id_ = std::move(ask_id); }
  /// Counts `bytes` and parses them into `request`. Errors: the call's refusal, INVALID_ARGUMENT.
  template <typename Request>
  absl::Status Read(const grpc::ByteBuffer& bytes, Request& request) {
    meter_.Received(bytes);
    return context_.refusal.ok() ? ParseMessage(bytes, request) : context_.refusal;
  }
  /// Counts a message of a stream that somebody else parses.
  void Received(const grpc::ByteBuffer& message) { meter_.Received(message); }
  /// A message is about to be written.
  void Answering();
  void Answering(const grpc::ByteBuffer& message) {
    meter_.Sent(message);
    Answering();
  }
  /// Counts the end, and logs that of a question. Returns what to finish with; called once.
  grpc::Status End(const absl::Status& status);
  /// Breaks the transport off.
  void Cut() { grpc_.TryCancel(); }

 private:
  template <typename Add>
  void AddIds(Add add) const;

  ServerCore& core_;
  grpc::CallbackServerContext& grpc_;
  CallMeter meter_;
  const CallContext context_;
  std::string ask_id_;  // empty: has none
  bool answering_ = false;
};

}  // namespace videonsa
