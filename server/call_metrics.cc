#include "server/call_metrics.h"

namespace videonsa {
namespace {

constexpr std::array<const char*, 17> kCodeNames = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

}  // namespace

CallMetrics::CallMetrics(MetricsRegistry& registry, const Clock& clock)
    : registry_(registry), clock_(clock) {
  for (size_t i = 0; i < started_.size(); ++i) {
    const MetricLabels labels = {{"grpc_method", MethodName(static_cast<Method>(i))}};
    started_[i] = registry.AddCounter("grpc_server_call_started_total", "Calls begun.", labels);
    active_[i] = registry.AddGauge("videonsa_grpc_calls_active", "Calls open now.", labels);
  }
}

void CallMetrics::Begin(Method method) {
  started_[static_cast<size_t>(method)].Add();
  active_[static_cast<size_t>(method)].Add(1);
  if (InfoOf(method).question) open_questions_.fetch_add(1, std::memory_order_acq_rel);
}

void CallMetrics::End(Method method, const Ended& call) {
  const auto row = static_cast<size_t>(method);
  const size_t column =
      call.code >= 0 && call.code < kNumCodes ? static_cast<size_t>(call.code) : 2;
  active_[row].Add(-1);
  if (InfoOf(method).question) open_questions_.fetch_sub(1, std::memory_order_acq_rel);
  absl::MutexLock lock(&mutex_);
  std::unique_ptr<Histograms>& histograms = ended_[row][column];
  if (histograms == nullptr) {
    const MetricLabels labels = {{"grpc_method", MethodName(method)},
                                 {"grpc_status", kCodeNames[column]}};
    histograms = std::make_unique<Histograms>();
    histograms->seconds = registry_.AddHistogram("grpc_server_call_duration_seconds",
                                                 "Calls ended.", buckets::Request(), labels);
    histograms->received = registry_.AddHistogram(
        "grpc_server_call_rcvd_total_compressed_message_size_bytes",
        "Bytes of the messages that a call received.", buckets::Bytes(), labels);
    histograms->sent = registry_.AddHistogram(
        "grpc_server_call_sent_total_compressed_message_size_bytes",
        "Bytes of the messages that a call was sent.", buckets::Bytes(), labels);
  }
  histograms->seconds.Observe(absl::ToDoubleSeconds(call.took));
  histograms->received.Observe(static_cast<double>(call.received_bytes));
  histograms->sent.Observe(static_cast<double>(call.sent_bytes));
}

}  // namespace videonsa
