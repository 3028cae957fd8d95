#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/clock.h"
#include "runtime/serving/runtime.h"
#include "runtime/telemetry/metrics.h"
#include "server/access/access_control.h"
#include "server/access/tenant_quotas.h"
#include "server/call_metrics.h"
#include "server/clip_importer.h"
#include "server/clip_store/clip_store.h"
#include "server/options.h"
#include "server/request_metrics.h"
#include "server/session_store.h"
#include "server/trace/trace_file.h"
#include "server/watchdog.h"
#include "server/worker_pool.h"

namespace videonsa {

/// Life of the process. Goes from left to right only; kFailed from anywhere.
enum class ServerState { kLoading, kReady, kDraining, kFailed };

/// What all services share. Outlives them and every call.
///
/// Threads: all methods may be called from any thread.
class ServerCore {
 public:
  ServerCore(const ServerOptions& options, const Clock& clock, MetricsRegistry& metrics,
             AccessControl& access, ClipStore& clips);

  const ServerOptions options;
  const Clock& clock;
  MetricsRegistry& metrics;
  AccessControl& access;
  ClipStore& clips;
  TenantQuotas quotas;
  CallMetrics calls;
  RequestMetrics requests;
  SessionStore sessions;
  WorkerPool disk;     ///< uploads and clip records
  WorkerPool probing;  ///< Runtime::Probe and Runtime::Estimate
  ClipImporter importer;
  Watchdog watchdog;
  const absl::Time start_time;
  std::unique_ptr<TraceFile> trace;  ///< null: none; set before the first call

  /// The runtime if new work is taken.
  /// Errors: UNAVAILABLE (LOADING, DRAINING, DEVICE_LOST).
  absl::StatusOr<Runtime*> Admit() const;

  /// The runtime, or null while loading.
  Runtime* runtime() const { return runtime_.load(std::memory_order_acquire); }
  /// Requires: `runtime` outlives every call.
  void SetRuntime(Runtime* runtime) { runtime_.store(runtime, std::memory_order_release); }

  ServerState state() const { return state_.load(std::memory_order_acquire); }
  /// Moves to `state`; returns false if that would go back.
  bool MoveTo(ServerState state);

 private:
  std::atomic<Runtime*> runtime_{nullptr};
  std::atomic<ServerState> state_{ServerState::kLoading};
  std::array<Gauge, 4> state_gauges_;
};

}  // namespace videonsa
