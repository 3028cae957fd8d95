#pragma once

#include <functional>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "client/ask_stream.h"
#include "client/bench/sample.h"
#include "client/bench/timer.h"
#include "grpcpp/client_context.h"
#include "videonsa/v1/video_qa.grpc.pb.h"

namespace videonsa::client {

/// Seconds on the monotonic clock since some moment of this process.
double MonotonicSeconds();

/// One streamed question of a load run, read by gRPC's callback threads.
///
/// Lifetime: keeps itself alive until its end; `on_end` is called once, then nothing more.
/// Threads: Start once; Cancel any time from any thread.
class AskCall : public grpc::ClientReadReactor<proto::AskStreamResponse>,
                public std::enable_shared_from_this<AskCall> {
 public:
  struct Setup {
    proto::AskStreamRequest request;
    absl::Time deadline;
    double begin_s = 0;  ///< MonotonicSeconds at the beginning of the run
    absl::Duration read_delay = absl::ZeroDuration();
    Timer* timer = nullptr;  ///< for read_delay; outlives the call
    std::string bearer_token;
  };

  AskCall(Setup setup, Sample sample, std::function<void(Sample)> on_end);

  void Start(proto::VideoQaService::Stub& stub);
  void Cancel();

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  double Now() const { return MonotonicSeconds() - setup_.begin_s; }
  void Take(const proto::AskStreamResponse& event, double now);

  const Setup setup_;
  const std::function<void(Sample)> on_end_;
  grpc::ClientContext context_;
  proto::AskStreamResponse event_;
  AskAssembler assembler_;
  absl::Status broken_;
  std::shared_ptr<AskCall> self_;  // until OnDone
  absl::Mutex mutex_;
  Sample sample_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace videonsa::client
