#pragma once

#include <array>
#include <vector>

#include "runtime/telemetry/metrics.h"

/// The metrics that rooms below the server count. Each room makes its own set at start from the
/// registry it is given and keeps the handles; a default-made set counts nothing.
///
/// The server counts what a finished request reports about itself (phases, tokens, attention
/// budget, finish reasons: server/request_metrics.h); nobody counts those a second time.
namespace videonsa {

/// What a step consisted of.
enum class StepPhase { kPrefill, kDecode, kMixed };
inline constexpr int kNumStepPhases = 3;

/// Memory of a worker's first GPU, by use.
struct GpuMemoryMetrics {
  Gauge weights, kv, other;
};

/// Counted by the engine thread.
struct EngineMetrics {
  /// Creates the children; `gpus` has the first GPU of each worker, none on a CPU.
  static EngineMetrics Create(MetricsRegistry& registry, const std::vector<int>& gpus = {});

  Gauge requests_running;                 ///< in the engine
  std::array<Gauge, 3> requests_waiting;  ///< by Priority, as in api/generate_request.h
  /// Put back for a request of a higher class, by the Priority of who had to go: because memory was
  /// short, or only because as many ran as may.
  std::array<Counter, 3> preemptions_memory, preemptions_slots;
  std::array<Histogram, kNumStepPhases> step_seconds;
  std::array<Histogram, kNumStepPhases> step_sequences;
  std::array<Histogram, kNumStepPhases> step_tokens;
  std::array<Histogram, kNumStepPhases> step_error;  ///< |predicted - real| / real seconds

  Gauge kv_pages_free, kv_pages_active, kv_pages_cached, kv_pages_pinned;  ///< sum to capacity
  Gauge kv_pages_capacity;
  Gauge kv_page_tokens;
  Gauge kv_usage_ratio;  ///< (active + pinned) / capacity
  Counter kv_evictions_lru, kv_evictions_ttl, kv_evictions_flush;
  Counter prefix_cache_query_tokens, prefix_cache_hit_tokens;
  Counter feature_cache_queries, feature_cache_hits;
  Gauge feature_cache_bytes;
  Gauge sessions;             ///< that keep pages
  Counter sessions_unpinned;  ///< lost their pages to a request that needed them

  // Of workers on a GPU; 0 without one.
  Counter gpu_vision_seconds, gpu_prefill_seconds, gpu_decode_seconds;
  Counter gpu_lost, gpu_out_of_memory;
  Counter decode_replays, decode_launches;
  std::vector<GpuMemoryMetrics> gpu_memory;  ///< by worker
};

/// How a decoder process ended.
enum class DecoderExit {
  kOk,
  kCpuLimit,
  kMemoryLimit,
  kWallLimit,
  kSignal,
  kSeccomp,
  kProtocol,
};
inline constexpr int kNumDecoderExits = 7;

/// Why media was refused.
enum class MediaErrorKind {
  kUnsupported,
  kCorrupt,
  kTooManyPixels,
  kTooLong,
  kTooManyPackets,
  kTimeout,
  kOther,
};
inline constexpr int kNumMediaErrorKinds = 7;

/// Counted by the media threads.
struct MediaMetrics {
  /// Creates the children.
  static MediaMetrics Create(MetricsRegistry& registry);

  Counter frames_decoded;  ///< decoded in order to reach the used ones
  Counter frames_used;
  Counter pixels_decoded;
  std::array<Counter, kNumMediaErrorKinds> errors;  ///< by MediaErrorKind
  std::array<Counter, kNumDecoderExits> exits;      ///< by DecoderExit
  Gauge queue_depth;                                ///< loads waiting for a decoder process
  Gauge workers_busy, workers_idle;                 ///< decoder processes
};

}  // namespace videonsa
