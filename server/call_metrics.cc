#include "server/call_metrics.h"

namespace videonsa {
namespace {

constexpr std::array<const char*, kNumMethods> kMethodNames = {
    "videonsa.v1.VideoQaService/Ask",
    "videonsa.v1.VideoQaService/AskStream",
    "videonsa.v1.VideoQaService/Estimate",
    "videonsa.v1.VideoQaService/CreateSession",
    "videonsa.v1.VideoQaService/AppendToSession",
    "videonsa.v1.VideoQaService/DeleteSession",
    "videonsa.v1.VideoQaService/AskMany",
    "videonsa.v1.ClipService/StartUpload",
    "videonsa.v1.ClipService/UploadClip",
    "videonsa.v1.ClipService/QueryUpload",
    "videonsa.v1.ClipService/AbortUpload",
    "videonsa.v1.ClipService/ImportClip",
    "videonsa.v1.ClipService/GetClip",
    "videonsa.v1.ClipService/ListClips",
    "videonsa.v1.ClipService/WatchClip",
    "videonsa.v1.ClipService/DeleteClip",
    "videonsa.v1.ServerService/GetModel",
    "videonsa.v1.ServerService/GetServerStatus",
    "videonsa.admin.v1.AdminService",
};

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

const char* MethodName(Method method) { return kMethodNames[static_cast<size_t>(method)]; }

CallMetrics::CallMetrics(MetricsRegistry& registry, const Clock& clock)
    : registry_(registry), clock_(clock) {
  for (size_t i = 0; i < kMethodNames.size(); ++i) {
    const MetricLabels labels = {{"grpc_method", kMethodNames[i]}};
    started_[i] = registry.AddCounter("grpc_server_call_started_total", "Calls begun.", labels);
    active_[i] = registry.AddGauge("videonsa_grpc_calls_active", "Calls open now.", labels);
  }
}

void CallMetrics::Begin(Method method) {
  started_[static_cast<size_t>(method)].Add();
  active_[static_cast<size_t>(method)].Add(1);
  if (IsQuestion(method)) open_questions_.fetch_add(1, std::memory_order_acq_rel);
}

void CallMetrics::End(Method method, int code, absl::Duration took) {
  const auto row = static_cast<size_t>(method);
  const size_t column = code >= 0 && code < kNumCodes ? static_cast<size_t>(code) : 2;
  active_[row].Add(-1);
  if (IsQuestion(method)) open_questions_.fetch_sub(1, std::memory_order_acq_rel);
  absl::MutexLock lock(&mutex_);
  std::unique_ptr<Histogram>& histogram = ended_[row][column];
  if (histogram == nullptr) {
    histogram = std::make_unique<Histogram>(registry_.AddHistogram(
        "grpc_server_call_duration_seconds", "Calls ended.", buckets::Request(),
        {{"grpc_method", kMethodNames[row]}, {"grpc_status", kCodeNames[column]}}));
  }
  histogram->Observe(absl::ToDoubleSeconds(took));
}

}  // namespace videonsa
