#include "server/server_core.h"

#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr int kDiskThreads = 4;
constexpr int kProbeThreads = 2;
constexpr size_t kDiskQueue = 1024;
constexpr size_t kProbeQueue = 64;

absl::Status Unavailable(const char* reason, const char* message, absl::Duration retry) {
  return MakeError(absl::StatusCode::kUnavailable,
                   ErrorInfo{.reason = reason, .retry_after = retry}, message);
}

}  // namespace

ServerCore::ServerCore(const ServerOptions& options_in, const Clock& clock_in,
                       MetricsRegistry& metrics_in, AccessControl& access_in, ClipStore& clips_in)
    : options(options_in),
      clock(clock_in),
      metrics(metrics_in),
      access(access_in),
      clips(clips_in),
      quotas(access, options.access.named_tenants, clock, metrics),
      calls(metrics_in, clock_in),
      requests(metrics_in),
      sessions(options.sessions, options.question, clock,
               [this](const SessionPin& pin) {
                 if (Runtime* const served = runtime()) served->Unpin(pin);
               }),
      disk(kDiskThreads, kDiskQueue),
      probing(kProbeThreads, kProbeQueue),
      importer(options.urls, options.clips.max_clip_bytes, clips, disk, clock, metrics),
      start_time(clock_in.Now()) {
  constexpr std::array<const char*, 4> kNames = {"loading", "ready", "draining", "failed"};
  for (size_t i = 0; i < kNames.size(); ++i) {
    state_gauges_[i] = metrics.AddGauge(
        "videonsa_server_state", "1 for the state the server is in.", {{"state", kNames[i]}});
  }
  state_gauges_[0].Set(1);
}

absl::StatusOr<Runtime*> ServerCore::Admit() const {
  switch (state()) {
    case ServerState::kLoading:
      return Unavailable("LOADING", "the model is being loaded", absl::Seconds(2));
    case ServerState::kDraining:
      return Unavailable("DRAINING", "the server is ending; ask another one", absl::Seconds(1));
    case ServerState::kFailed:
      return Unavailable("DEVICE_LOST", "the server has failed and restarts", absl::Seconds(5));
    case ServerState::kReady:
      break;
  }
  return runtime();
}

bool ServerCore::MoveTo(ServerState next) {
  ServerState now = state();
  while (now < next) {
    if (state_.compare_exchange_weak(now, next)) {
      for (size_t i = 0; i < state_gauges_.size(); ++i) {
        state_gauges_[i].Set(i == static_cast<size_t>(next) ? 1 : 0);
      }
      return true;
    }
  }
  return false;
}

}  // namespace videonsa
