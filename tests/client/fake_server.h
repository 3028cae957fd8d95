#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "grpcpp/server.h"
#include "videonsa/v1/clip.grpc.pb.h"
#include "videonsa/v1/server.grpc.pb.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa::client {

namespace proto = ::videonsa::v1;

/// A grpc status with google.rpc details as the server makes them.
grpc::Status TypedError(grpc::StatusCode code, const std::string& reason,
                        const std::string& message,
                        const std::map<std::string, std::string>& metadata = {},
                        double retry_after_s = 0);

/// What a fake server remembers over restarts, and how it misbehaves.
struct FakeState {
  struct Upload {
    std::string request_id, sha256, bytes, clip_name, label;
    int64_t size = 0;
    bool complete = false;
  };
  absl::Mutex mutex;
  std::map<std::string, Upload> uploads ABSL_GUARDED_BY(mutex);
  std::map<std::string, proto::Clip> clips ABSL_GUARDED_BY(mutex);
  int next_id ABSL_GUARDED_BY(mutex) = 1;
  int upload_streams ABSL_GUARDED_BY(mutex) = 0;
  std::vector<proto::AskStreamRequest> asked ABSL_GUARDED_BY(mutex);
  std::vector<std::string> authorizations ABSL_GUARDED_BY(mutex);

  /// Ends the n-th upload stream (0-based) with this status once it has committed so many bytes of
  /// its own; called with the lock held. Empty: never.
  std::function<bool(int stream, int64_t committed_here, grpc::Status* status)> cut;
  /// Flips a bit of the n-th chunk of the first stream before its checksum is looked at; -1: never.
  int corrupt_chunk = -1;
  bool probe_fails = false;
  /// The answer; empty: a plain one that repeats the question.
  std::function<grpc::Status(grpc::ServerContext*, const proto::AskStreamRequest&,
                             grpc::ServerWriter<proto::AskStreamResponse>*)>
      answer;
  /// Any other call fails with this first, if it is not OK.
  grpc::Status refuse;
};

/// Serves the generated services from a FakeState on a loopback port.
class FakeServer {
 public:
  /// `port` 0: any free one.
  explicit FakeServer(FakeState& state, int port = 0);
  ~FakeServer();

  int port() const { return port_; }
  std::string address() const;

 private:
  struct Services;
  std::unique_ptr<Services> services_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

/// A result as a server with sparse attention sends it: one clip of 32 frames, timings, budget,
/// evidence.
proto::AskResult SampleResult();

}  // namespace videonsa::client
