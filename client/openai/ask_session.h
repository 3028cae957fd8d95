#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa::openai {

/// What a call carries besides its message.
struct CallHeaders {
  std::map<std::string, std::string> metadata;  ///< lower-case names, printable ASCII values
  absl::Duration timeout = absl::InfiniteDuration();
};

/// One AskStream call whose events can be waited for with a time limit, so that the thread that
/// serves the HTTP connection can look at the connection in between.
///
/// Threads: Next from one thread; Cancel from any. gRPC's threads only queue events; what waits is
///          bounded by the longest answer.
/// Lifetime: the call keeps itself alive until gRPC is done with it; the last outside reference
///           cancels it when it goes.
class AskSession {
 public:
  enum class Wait { kEvent, kTimeout, kEnd };

  /// Begins the call. Never blocks.
  static std::shared_ptr<AskSession> Start(v1::VideoQaService::StubInterface& stub,
                                           v1::AskStreamRequest request,
                                           const CallHeaders& headers);
  virtual ~AskSession() = default;

  /// Takes the next event. kEnd: the call has ended and status() says how.
  virtual Wait Next(absl::Duration timeout, v1::AskStreamResponse& event) = 0;
  /// Requires: Next has returned kEnd.
  virtual absl::Status status() const = 0;
  /// The server's x-request-id; empty until the first event or kEnd.
  virtual std::string request_id() const = 0;
  virtual void Cancel() = 0;
};

}  // namespace videonsa::openai
