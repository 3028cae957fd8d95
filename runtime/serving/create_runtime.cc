#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/engine/warm_up.h"
#include "runtime/executor/executor_factory.h"
#include "runtime/serving/runtime.h"
#include "runtime/serving/runtime_impl.h"
#include "runtime/serving/worker_devices.h"
#include "runtime/telemetry/log.h"
#include "runtime/text/chat_config.h"

namespace videonsa {
namespace {

// KV memory when nobody says how much: a quarter of what is available, page cache that can be given
// up included, within these.
constexpr int64_t kMinKvBytes = int64_t{64} << 20;
constexpr int64_t kMaxKvBytes = int64_t{4} << 30;

int64_t DefaultKvBytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string name, unit;
  for (int64_t kib = 0; meminfo >> name >> kib; std::getline(meminfo, unit)) {
    if (name == "MemAvailable:") return std::clamp(kib * 1024 / 4, kMinKvBytes, kMaxKvBytes);
  }
  return kMinKvBytes;
}

absl::StatusOr<ComputeType> ParseComputeType(const std::string& name) {
  if (name == "auto" || name.empty()) return ComputeType::kAuto;
  if (name == "fp32") return ComputeType::kF32;
  if (name == "bf16") return ComputeType::kBF16;
  return InvalidField("compute_type", absl::StrCat("\"", name, "\" is not auto, fp32 or bf16"));
}

absl::StatusOr<std::optional<AttentionSemantics>> ParseAttentionName(const std::string& name) {
  if (name.empty()) return std::optional<AttentionSemantics>();
  for (const AttentionSemantics semantics :
       {AttentionSemantics::kDense, AttentionSemantics::kCausalNsa,
        AttentionSemantics::kReleasedNsa, AttentionSemantics::kTriShape,
        AttentionSemantics::kMInference, AttentionSemantics::kFlexPrefill,
        AttentionSemantics::kXAttention}) {
    if (name == SemanticsName(semantics)) return std::optional<AttentionSemantics>(semantics);
  }
  return InvalidField("attention", absl::StrCat("\"", name, "\" is not a known attention"));
}

absl::Status CheckOptions(const RuntimeOptions& options) {
  if (options.max_running < 1) return InvalidField("max_running", "is below 1");
  if (options.max_waiting < 1) return InvalidField("max_waiting", "is below 1");
  if (options.prefill_chunk_tokens != 0 && options.prefill_chunk_tokens < kPageTokens) {
    return InvalidField(
        "prefill_chunk_tokens",
        absl::StrCat(options.prefill_chunk_tokens, " is below a page of ", kPageTokens, " tokens"));
  }
  if (options.max_preemptions < 0) return InvalidField("max_preemptions", "is below 0");
  if (!(options.warm_up_seconds >= 0)) return InvalidField("warm_up_seconds", "is below 0");
  if (options.max_output_tokens < 1) return InvalidField("max_output_tokens", "is below 1");
  if (options.default_max_output_tokens < 1) {
    return InvalidField("default_max_output_tokens", "is below 1");
  }
  if (options.patch_buffer_bytes < 1) return InvalidField("patch_buffer_bytes", "is below 1");
  const auto is_share = [](double share) { return share >= 0 && share <= 1; };
  if (!is_share(options.session_kv_share) || !is_share(options.tenant_session_kv_share)) {
    return InvalidField("session_kv_share",
                        absl::StrCat(options.session_kv_share, " or ",
                                     options.tenant_session_kv_share, " is not in [0, 1]"));
  }
  if (options.cpu_threads < 0) return InvalidField("cpu_threads", "is below 0");
  if (options.cpu_workers < 1 || options.cpu_workers > 64) {
    return InvalidField("cpu_workers", absl::StrCat(options.cpu_workers, " is not in [1, 64]"));
  }
  if (options.tensor_parallel < 1 || options.tensor_parallel > kMaxTensorParallel) {
    return InvalidField("tensor_parallel", absl::StrCat(options.tensor_parallel, " is not in [1, ",
                                                        kMaxTensorParallel, "]"));
  }
  return absl::OkStatus();
}

// Binds the calling thread to `count` cores from the `begin`-th of those that the process may use.
void BindThread(int begin, int count) {
  cpu_set_t allowed, bound;
  CPU_ZERO(&bound);
  if (sched_getaffinity(getpid(), sizeof(allowed), &allowed) != 0) return;
  int at = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    if (at >= begin && at < begin + count) CPU_SET(cpu, &bound);
    ++at;
  }
  // More threads than cores: everybody may run anywhere.
  if (CPU_COUNT(&bound) == count) sched_setaffinity(0, sizeof(bound), &bound);
}

// Rows of one step when nobody says how many.
int ChunkTokens(const RuntimeOptions& options, bool gpu) {
  if (options.prefill_chunk_tokens > 0) return options.prefill_chunk_tokens;
  return gpu ? 16384 : 512;
}

absl::StatusOr<ExecutorOptions> ExecutorOptionsOf(const RuntimeOptions& options,
                                                  DeviceKind device) {
  ExecutorOptions executor;
  executor.model_dir = options.model_dir;
  executor.dummy_weights = options.dummy_weights;
  VNSA_ASSIGN_OR_RETURN(executor.attention, ParseAttentionName(options.attention));
  VNSA_ASSIGN_OR_RETURN(executor.compute_type, ParseComputeType(options.compute_type));
  executor.threads = options.cpu_threads;
  executor.device = device;
  executor.tensor_parallel = options.tensor_parallel;
  const bool gpu = device == DeviceKind::kCuda;
  executor.kv_bytes = options.kv_bytes;  // 0 on a GPU: what is free
  if (executor.kv_bytes == 0 && !gpu) executor.kv_bytes = DefaultKvBytes();
  executor.max_context_tokens = options.max_context_tokens;
  executor.max_rows = ChunkTokens(options, gpu);
  executor.batch_invariant = options.batch_invariant;
  return executor;
}

int NumThreads(const RuntimeOptions& options) {
  return options.cpu_threads > 0
             ? options.cpu_threads
             : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

// What of devices, threads and KV memory is worker `worker`'s, and the cores for its threads: with
// them are bound the threads that they start. One worker is not bound: it may use all cores.
struct WorkerShare {
  WorkerShare(const RuntimeOptions& options, const WorkerPlan& plan, int worker)
      : num_workers(NumWorkers(options, plan)),
        begin(NumThreads(options) * worker / num_workers),
        count(std::max(NumThreads(options) * (worker + 1) / num_workers - begin, 1)) {
    if (plan.device == DeviceKind::kCuda) gpus = plan.gpus[static_cast<size_t>(worker)];
  }
  static int NumWorkers(const RuntimeOptions& options, const WorkerPlan& plan) {
    return plan.device == DeviceKind::kCuda ? static_cast<int>(plan.gpus.size())
                                            : options.cpu_workers;
  }
  void BindThisThread() const {
    if (num_workers > 1 && gpus.empty()) BindThread(begin, count);
  }
  absl::StatusOr<std::unique_ptr<Executor>> Open(ExecutorOptions executor,
                                                 ModelDescription* description) const {
    if (num_workers > 1) executor.threads = count;
    executor.kv_bytes /= num_workers;
    executor.rank_ordinals = gpus;
    if (!gpus.empty()) executor.device_ordinal = gpus[0];
    return CreateExecutor(executor, description);
  }

  int num_workers, begin, count;
  std::vector<int> gpus;
};

// Times steps on a worker; the others are its equals.
absl::StatusOr<std::vector<CostSample>> MeasureWorker(const RuntimeOptions& options,
                                                      const ModelDescription& model,
                                                      Executor& executor) {
  VNSA_ASSIGN_OR_RETURN(
      std::vector<CostSample> samples,
      MeasureCosts(executor, {.seconds = options.warm_up_seconds,
                              .prefill_tokens = ChunkTokens(options, model.device != "cpu"),
                              .vision_token_id = model.video_pad_id}));
  CostModel cost(executor.info());
  cost.Fit(samples);
  Log(LogLevel::kInfo, "steps timed", {{"cost_model", cost.ToString()}});
  return samples;
}

// Opens the workers, those of GPUs side by side: each waits for its own copies.
absl::Status OpenWorkers(const RuntimeOptions& options, ModelDescription& description,
                         RuntimeParts& parts) {
  Log(LogLevel::kInfo, "workers of this machine", {{"devices", DescribeWorkers()}});
  VNSA_ASSIGN_OR_RETURN(const DeviceNames names, ParseDeviceNames(options.device));
  VNSA_ASSIGN_OR_RETURN(const WorkerPlan plan,
                        PlanWorkers(names, options.tensor_parallel, GpuView()));
  VNSA_ASSIGN_OR_RETURN(const ExecutorOptions executor, ExecutorOptionsOf(options, plan.device));
  const int num_workers = WorkerShare::NumWorkers(options, plan);
  std::vector<absl::StatusOr<std::unique_ptr<Executor>>> opened(static_cast<size_t>(num_workers));
  absl::StatusOr<std::vector<CostSample>> samples;
  std::vector<std::thread> openers;
  for (int i = 0; i < num_workers; ++i) {
    // Not on this thread, which shall stay free to run anywhere.
    openers.emplace_back([&, i] {
      const WorkerShare share(options, plan, i);
      share.BindThisThread();
      auto& worker = opened[static_cast<size_t>(i)];
      worker = share.Open(executor, i == 0 ? &description : nullptr);
      if (i == 0 && worker.ok()) samples = MeasureWorker(options, description, **worker);
    });
    if (plan.device == DeviceKind::kCpu) openers.back().join();
  }
  for (std::thread& opener : openers) {
    if (opener.joinable()) opener.join();
  }
  std::vector<std::unique_ptr<Executor>> executors;
  for (auto& worker : opened) {
    VNSA_RETURN_IF_ERROR(worker.status());
    executors.push_back(*std::move(worker));
  }
  VNSA_ASSIGN_OR_RETURN(parts.engine.cost_samples, std::move(samples));
  parts.prompt.info = CommonInfo(executors);
  for (const std::vector<int>& gpus : plan.gpus) parts.gpus.push_back(gpus.front());
  parts.executor = std::move(executors.front());
  executors.erase(executors.begin());
  parts.more_executors = std::move(executors);
  parts.on_worker_start = [=](int i) { WorkerShare(options, plan, i).BindThisThread(); };
  // A process that lost a GPU cannot use it again: the other workers go on, and after the last it
  // ends and its supervisor starts another.
  if (plan.device == DeviceKind::kCuda) return absl::OkStatus();
  parts.restart = [=](int i) { return WorkerShare(options, plan, i).Open(executor, nullptr); };
  return absl::OkStatus();
}

GenerationDefaults DefaultsOf(const RuntimeOptions& options, const ModelDescription& model) {
  GenerationDefaults defaults;
  defaults.do_sample = model.do_sample;
  defaults.temperature = model.temperature;
  defaults.top_p = model.top_p;
  defaults.top_k = model.top_k;
  defaults.repetition_penalty = model.repetition_penalty;
  defaults.max_output_tokens = options.default_max_output_tokens;
  defaults.output_tokens_limit = options.max_output_tokens;
  return defaults;
}

ModelFacts FactsOf(const RuntimeOptions& options, const ModelDescription& model,
                   const ExecutorInfo& info) {
  ModelFacts facts;
  facts.name = model.name;
  facts.weights_digest = model.random_weights ? "dummy" : HexOf(model.digest);
  facts.compute_type = model.compute_type == "f32" ? "fp32" : model.compute_type;
  facts.device = model.device;
  facts.semantics = info.semantics;
  facts.layers = info.num_layers;
  facts.q_heads = info.num_q_heads;
  facts.kv_heads = info.num_kv_heads;
  facts.vocab_size = info.vocab_size;
  facts.block_tokens = kPageTokens;
  facts.selected_blocks = info.selected_blocks;
  facts.window_tokens = info.window_tokens;
  facts.max_context_tokens = info.max_context_tokens;
  facts.preprocess_mode = options.preprocess_mode;
  facts.default_fps = options.default_fps;
  facts.max_frames = options.max_frames;
  facts.max_output_tokens = options.max_output_tokens;
  facts.random_weights = model.random_weights;
  return facts;
}

// Limits in the preprocessor_config.json of Qwen2.5-VL (preprocess-and-model, section 1.1).
constexpr int64_t kUpstreamMinPixels = 4 * 784;
constexpr int64_t kUpstreamMaxPixels = 16384 * 784;

MediaOptions MediaOptionsOf(const RuntimeOptions& options, const ModelDescription& model) {
  MediaOptions media;
  media.decoder_binary = options.decoder_binary;
  media.decoder_processes = options.decoder_processes;
  media.default_fps = options.default_fps;
  media.max_frames = options.max_frames;
  media.mode = options.preprocess_mode;
  // A checkpoint that states limits of its own was trained with them: they hold for clips and
  // pictures in both modes. One that keeps upstream's gets what the mode says: the evaluation
  // wrapper overrides them, upstream does not.
  const bool own_limits =
      model.min_pixels != kUpstreamMinPixels || model.max_pixels != kUpstreamMaxPixels;
  if (own_limits && model.max_pixels > 0) {
    media.video_min_pixels = model.min_pixels;
    media.video_max_pixels = model.max_pixels;
  }
  if (own_limits || options.preprocess_mode == PreprocessMode::kQwenVlUtils) {
    media.image_min_pixels = model.min_pixels;
    media.image_max_pixels = model.max_pixels;
  }
  return media;
}

void FillEngineOptions(const RuntimeOptions& options, const ModelDescription& model,
                       const ExecutorInfo& info, EngineOptions& engine) {
  engine.max_running = options.max_running;
  engine.max_waiting = options.max_waiting;
  engine.max_preemptions = options.max_preemptions;
  engine.pinned_share = options.session_kv_share;
  engine.tenant_pinned_share = options.tenant_session_kv_share;
  engine.step.prefill_tokens = ChunkTokens(options, model.device != "cpu");
  // Two layer-wise prefills of the longest prompt side by side.
  engine.hidden_bytes = 2 * info.max_context_tokens * info.hidden_row_bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runtime>> CreateRuntime(const RuntimeOptions& options,
                                                       const Clock& clock,
                                                       MetricsRegistry& metrics) {
  VNSA_RETURN_IF_ERROR(CheckOptions(options));
  RuntimeParts parts;
  ModelDescription model;
  VNSA_ASSIGN_OR_RETURN(parts.tokenizer, Tokenizer::Load(options.model_dir));
  VNSA_ASSIGN_OR_RETURN(ChatConfig chat, ReadChatConfig(options.model_dir, *parts.tokenizer));
  VNSA_RETURN_IF_ERROR(OpenWorkers(options, model, parts));
  VNSA_ASSIGN_OR_RETURN(parts.media, MediaLoader::Create(MediaOptionsOf(options, model),
                                                         MediaMetrics::Create(metrics)));
  const ExecutorInfo& info = parts.prompt.info;
  parts.facts = FactsOf(options, model, info);
  parts.prompt.chat = chat.tokens;
  parts.prompt.generation = DefaultsOf(options, model);
  parts.prompt.model_salt =
      absl::StrCat(parts.facts.weights_digest, "|", parts.facts.name, "|", model.compute_type);
  FillEngineOptions(options, model, info, parts.engine);
  parts.metrics = &metrics;
  parts.media_threads = options.decoder_processes;
  parts.patch_buffer_bytes = options.patch_buffer_bytes;
  parts.cpu_threads = NumThreads(options);
  return std::unique_ptr<Runtime>(std::make_unique<RuntimeImpl>(std::move(parts), clock));
}

}  // namespace videonsa
