#include "runtime/telemetry/metric_sets.h"

#include <string>

namespace videonsa {
namespace {

Counter Preemptions(MetricsRegistry& registry, const char* reason, const char* priority) {
  return registry.AddCounter("videonsa_preemptions_total",
                             "Sequences put back in the queue for a higher class, by reason and by "
                             "the class of who had to go.",
                             {{"reason", reason}, {"priority", priority}});
}

}  // namespace

namespace {

GpuMemoryMetrics AddGpuMemory(MetricsRegistry& registry, size_t worker, int gpu) {
  const auto memory = [&](const char* pool) {
    return registry.AddGauge(
        "videonsa_gpu_memory_bytes",
        "Memory of a worker's first GPU that this server has allocated; each "
        "of several ranks holds as much.",
        {{"worker", std::to_string(worker)}, {"device", std::to_string(gpu)}, {"pool", pool}});
  };
  return {memory("weights"), memory("kv"), memory("other")};
}

void AddGpuMetrics(MetricsRegistry& registry, const std::vector<int>& gpus, EngineMetrics& m) {
  const auto seconds = [&registry](const char* stage) {
    return registry.AddCounter("videonsa_gpu_stage_seconds_total",
                               "Time of the GPU in the parts of steps, by its own events.",
                               {{"stage", stage}});
  };
  m.gpu_vision_seconds = seconds("vision");
  m.gpu_prefill_seconds = seconds("prefill");
  m.gpu_decode_seconds = seconds("decode");
  const auto errors = [&registry](const char* kind) {
    return registry.AddCounter("videonsa_cuda_errors_total", "Failures that CUDA reported.",
                               {{"kind", kind}});
  };
  m.gpu_lost = errors("device_lost");
  m.gpu_out_of_memory = errors("out_of_memory");
  const auto launches = [&registry](const char* kind) {
    return registry.AddCounter("videonsa_cuda_graph_launches_total",
                               "Decode passes started as one recorded graph, or kernel by kernel.",
                               {{"phase", "decode"}, {"kind", kind}});
  };
  m.decode_replays = launches("replay");
  m.decode_launches = launches("eager");
  for (size_t worker = 0; worker < gpus.size(); ++worker) {
    m.gpu_memory.push_back(AddGpuMemory(registry, worker, gpus[worker]));
  }
}

}  // namespace

// size: one list of metrics
EngineMetrics EngineMetrics::Create(MetricsRegistry& registry, const std::vector<int>& gpus) {
  constexpr std::array<const char*, 3> kPriorities = {"batch", "standard", "interactive"};
  constexpr std::array<const char*, kNumStepPhases> kPhases = {"prefill", "decode", "mixed"};
  EngineMetrics m;
  m.requests_running = registry.AddGauge("videonsa_requests_running", "Questions in the engine.");
  for (size_t i = 0; i < kPriorities.size(); ++i) {
    m.requests_waiting[i] =
        registry.AddGauge("videonsa_requests_waiting", "Questions queued, by priority class.",
                          {{"priority", kPriorities[i]}});
    m.preemptions_memory[i] = Preemptions(registry, "memory", kPriorities[i]);
    m.preemptions_slots[i] = Preemptions(registry, "slots", kPriorities[i]);
  }
  for (size_t i = 0; i < kPhases.size(); ++i) {
    const MetricLabels phase = {{"phase", kPhases[i]}};
    m.step_seconds[i] = registry.AddHistogram("videonsa_scheduler_iteration_duration_seconds",
                                              "One engine step.", buckets::Stage(), phase);
    m.step_sequences[i] = registry.AddHistogram("videonsa_batch_sequences", "Sequences per step.",
                                                buckets::Sequences(), phase);
    m.step_tokens[i] = registry.AddHistogram("videonsa_batch_tokens", "Tokens per step.",
                                             buckets::Tokens(), phase);
    m.step_error[i] = registry.AddHistogram(
        "videonsa_cost_model_error_ratio",
        "Predicted against real duration of an engine step: difference by reality.",
        buckets::Ratio(), phase);
  }
  const auto pages = [&registry](const char* state) {
    return registry.AddGauge("videonsa_kv_pages", "KV pages by state; they sum to the capacity.",
                             {{"state", state}});
  };
  m.kv_pages_free = pages("free");
  m.kv_pages_active = pages("active");
  m.kv_pages_cached = pages("cached");
  m.kv_pages_pinned = pages("pinned");
  m.kv_pages_capacity = registry.AddGauge("videonsa_kv_pages_capacity", "KV pages in all.");
  m.kv_page_tokens = registry.AddGauge("videonsa_kv_page_tokens", "Tokens per KV page.");
  m.kv_usage_ratio =
      registry.AddGauge("videonsa_kv_usage_ratio", "Share of KV pages that are active or pinned.");
  const auto evictions = [&registry](const char* reason) {
    return registry.AddCounter("videonsa_kv_evictions_total", "Cached KV pages dropped.",
                               {{"reason", reason}});
  };
  m.kv_evictions_lru = evictions("lru");
  m.kv_evictions_ttl = evictions("ttl");
  m.kv_evictions_flush = evictions("flush");
  m.prefix_cache_query_tokens = registry.AddCounter("videonsa_prefix_cache_query_tokens_total",
                                                    "Prompt tokens looked up in the prefix cache.");
  m.prefix_cache_hit_tokens = registry.AddCounter("videonsa_prefix_cache_hit_tokens_total",
                                                  "Prompt tokens found in the prefix cache.");
  m.feature_cache_queries = registry.AddCounter("videonsa_feature_cache_queries_total",
                                                "Visuals looked up in the feature cache.");
  m.feature_cache_hits = registry.AddCounter("videonsa_feature_cache_hits_total",
                                             "Visuals found in the feature cache.");
  m.feature_cache_bytes =
      registry.AddGauge("videonsa_feature_cache_bytes", "Bytes of cached vision features.");
  m.sessions = registry.AddGauge("videonsa_sessions", "Sessions that keep KV pages.");
  m.sessions_unpinned =
      registry.AddCounter("videonsa_sessions_unpinned_total",
                          "Sessions that lost their KV pages to a question that needed them.");
  AddGpuMetrics(registry, gpus, m);
  return m;
}

MediaMetrics MediaMetrics::Create(MetricsRegistry& registry) {
  constexpr std::array<const char*, kNumMediaErrorKinds> kReasons = {
      "unsupported", "corrupt", "too_many_pixels", "too_long", "too_many_packets",
      "timeout",     "other"};
  constexpr std::array<const char*, kNumDecoderExits> kCauses = {
      "ok", "cpu_limit", "memory_limit", "wall_limit", "signal", "seccomp", "protocol"};
  MediaMetrics m;
  m.frames_decoded = registry.AddCounter("videonsa_frames_decoded_total",
                                         "Frames decoded in order to reach the used ones.");
  m.frames_used =
      registry.AddCounter("videonsa_frames_used_total", "Frames given to the vision tower.");
  m.pixels_decoded = registry.AddCounter("videonsa_pixels_decoded_total", "Pixels decoded.");
  for (size_t i = 0; i < kReasons.size(); ++i) {
    m.errors[i] = registry.AddCounter("videonsa_media_errors_total", "Refused media.",
                                      {{"reason", kReasons[i]}});
  }
  for (size_t i = 0; i < kCauses.size(); ++i) {
    m.exits[i] = registry.AddCounter("videonsa_decoder_sandbox_exits_total",
                                     "Decoder processes that ended.", {{"cause", kCauses[i]}});
  }
  m.queue_depth = registry.AddGauge("videonsa_stage_queue_depth", "Work waiting for a stage.",
                                    {{"stage", "decode"}});
  const auto workers = [&registry](const char* state) {
    return registry.AddGauge("videonsa_stage_workers", "Workers of a stage by state.",
                             {{"stage", "decode"}, {"state", state}});
  };
  m.workers_busy = workers("busy");
  m.workers_idle = workers("idle");
  return m;
}

}  // namespace videonsa
