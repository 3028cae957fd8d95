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

void CallMetrics::End(Method method, int code, absl::Duration took) {
  const auto row = static_cast<size_t>(method);
  const size_t column = code >= 0 && code < kNumCodes ? static_cast<size_t>(code) : 2;
  active_[row].Add(-1);
  if (InfoOf(method).question) open_questions_.fetch_sub(1, std::memory_order_acq_rel);
  absl::MutexLock lock(&mutex_);
  std::unique_ptr<Histogram>& histogram = ended_[row][column];
  if (histogram == nullptr) {
    histogram = std::make_unique<Histogram>(registry_.AddHistogram(
        "grpc_server_call_duration_seconds", "Calls ended.", buckets::Request(),
        {{"grpc_method", MethodName(method)}, {"grpc_status", kCodeNames[column]}}));
  }
  histogram->Observe(absl::ToDoubleSeconds(took));
}

}  // namespace videonsa
