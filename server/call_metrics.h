#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "runtime/base/clock.h"
#include "runtime/telemetry/metrics.h"
#include "server/method.h"

namespace videonsa {

/// Calls begun, open and ended, by method and status. Threads: any.
class CallMetrics {
 public:
  CallMetrics(MetricsRegistry& registry, const Clock& clock);

  void Begin(Method method);
  /// `code` is a gRPC status code; the bytes are those of all messages of the call.
  struct Ended {
    int code = 1;
    absl::Duration took;
    int64_t received_bytes = 0;
    int64_t sent_bytes = 0;
  };
  void End(Method method, const Ended& call);

  /// Calls that run the model and are open now.
  int open_questions() const { return open_questions_.load(std::memory_order_acquire); }

  const Clock& clock() const { return clock_; }

 private:
  static constexpr int kNumCodes = 17;
  MetricsRegistry& registry_;
  const Clock& clock_;
  std::array<Counter, kNumMethods> started_;
  std::array<Gauge, kNumMethods> active_;
  std::atomic<int> open_questions_{0};
  absl::Mutex mutex_;
  // Made when a method first ends with a code: 23 x 17 of each at start would be 20000 series.
  struct Histograms {
    Histogram seconds, received, sent;
  };
  std::array<std::array<std::unique_ptr<Histograms>, kNumCodes>, kNumMethods> ended_
      ABSL_GUARDED_BY(mutex_);
};

/// One call, from its arrival to its end; an end that nobody noted counts as CANCELLED.
class CallMeter {
 public:
  CallMeter(CallMetrics& metrics, Method method)
      : metrics_(metrics), method_(method), begin_(metrics.clock().Monotonic()) {
    metrics_.Begin(method);
  }
  ~CallMeter() {
    metrics_.End(method_, {.code = code_,
                           .took = metrics_.clock().Monotonic() - begin_,
                           .received_bytes = received_,
                           .sent_bytes = sent_});
  }
  CallMeter(const CallMeter&) = delete;
  CallMeter& operator=(const CallMeter&) = delete;

  void SetCode(int code) { code_ = code; }
  /// Notes a message; its bytes as they travel, without the transport's frames.
  void Received(const grpc::ByteBuffer& message) { received_ += message.Length(); }
  void Sent(const grpc::ByteBuffer& message) { sent_ += message.Length(); }
  absl::Duration begin() const { return begin_; }

 private:
  CallMetrics& metrics_;
  const Method method_;
  const absl::Duration begin_;
  std::atomic<int> code_{1};
  std::atomic<int64_t> received_{0}, sent_{0};
};

}  // namespace videonsa
