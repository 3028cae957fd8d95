#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "client/call_options.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa::client {

namespace proto = ::videonsa::v1;

/// Called in the order of the stream from the thread that called ReadAskStream; any may be empty.
struct AskCallbacks {
  std::function<void(const proto::AcceptedEvent&)> on_accepted;
  std::function<void(const proto::ProgressEvent&)> on_progress;
  std::function<void(const proto::PrefillEvent&)> on_prefill;
  std::function<void(const proto::DeltaEvent&)> on_delta;
};

/// Asks and reads the answer to its end; returns the result with text and log-probabilities put
/// together from the deltas.
///
/// Errors: the server's; DATA_LOSS (STREAM_INCOMPLETE) if the stream ends well without its final
///         event; CANCELLED by options.cancellation.
/// Threads: blocks; callbacks must not call it again on the same cancellation.
absl::StatusOr<proto::AskResult> ReadAskStream(proto::VideoQaService::StubInterface& stub,
                                               const proto::AskStreamRequest& request,
                                               const AskCallbacks& callbacks,
                                               const CallOptions& options);

/// Assembles a result from events; what ReadAskStream does without the network.
class AskAssembler {
 public:
  /// Takes one event. Errors: DATA_LOSS for an event after the final one.
  absl::Status Take(const proto::AskStreamResponse& event);
  /// The result. Errors: DATA_LOSS if no final event came.
  absl::StatusOr<proto::AskResult> Finish();

  /// Text so far.
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  proto::AskResult result_;
  bool final_seen_ = false;
};

}  // namespace videonsa::client
