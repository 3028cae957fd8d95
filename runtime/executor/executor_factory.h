#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/hash.h"
#include "runtime/step/executor.h"

/// The only header of this folder that serving sees.
namespace videonsa {

enum class ComputeType {
  kAuto,  ///< bf16 on a GPU and where the CPU multiplies bf16 pairs, fp32 elsewhere
  kF32,
  kBF16,
};

enum class DeviceKind { kCpu, kCuda };

/// Ranks of one model.
inline constexpr int kMaxTensorParallel = 8;

struct ExecutorOptions {
  DeviceKind device = DeviceKind::kCpu;
  int device_ordinal = 0;  ///< which GPU, as the driver counts those in view
  /// Ranks that share the model: of the CPU's threads, or a GPU each of `rank_ordinals`. Threads
  /// and KV memory are divided among them. A rank has whole KV heads; for released_nsa all heads.
  int tensor_parallel = 1;
  std::vector<int> rank_ordinals;  ///< used if tensor_parallel > 1
  std::string model_dir;
  /// Random weights of the folder's config.json, or of `dummy_config_path` if it is set.
  bool dummy_weights = false;
  std::string dummy_config_path;
  /// Replaces the attention that the checkpoint was trained with.
  std::optional<AttentionSemantics> attention;
  ComputeType compute_type = ComputeType::kAuto;
  int threads = 0;                      ///< of the CPU; 0: one per core
  int num_pages = 0;                    ///< KV pages; 0: as many as fit kv_bytes
  int64_t kv_bytes = int64_t{1} << 30;  ///< 0 on a GPU: what is free
  int64_t max_context_tokens = 0;       ///< 0: what the checkpoint and the pages allow
  int max_rows = 512;                   ///< rows of one pass through a layer; longer slices are cut
  int64_t feature_cache_bytes = int64_t{64} << 20;  ///< features kept for later requests
  /// A GPU decodes a sequence bit for bit alike whatever is decoded beside it; slower from five
  /// sequences on. A CPU always does.
  bool batch_invariant = false;
  bool want_digest = true;  ///< whether the description's digest is computed
};

/// What serving must know of the model; constant after load.
struct ModelDescription {
  std::string name;  ///< last part of the model folder's path
  Sha256Digest digest{};
  bool random_weights = false;
  std::string compute_type;  ///< "f32" or "bf16"
  std::string device;        ///< "cpu", the GPU's name, or "N x " and the name
  AttentionSemantics semantics = AttentionSemantics::kDense;  ///< as trained
  std::vector<int32_t> stop_token_ids;
  int32_t image_pad_id = 0;
  int32_t video_pad_id = 0;
  int32_t vision_start_id = 0;
  int32_t vision_end_id = 0;
  int tokens_per_second = 2;  ///< M-RoPE time steps a second

  // generation_config.json; unset where it says nothing.
  bool do_sample = false;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> repetition_penalty;
  std::optional<int> max_new_tokens;

  // preprocessor_config.json.
  int64_t min_pixels = 0;
  int64_t max_pixels = 0;
  float image_mean[3] = {};
  float image_std[3] = {};
};

/// OK if the GPU can run a worker, else why not (runtime/ops/backends.h).
absl::Status CheckGpu(int ordinal);

/// Number of GPUs in view, at least one. Errors: as CheckGpu.
absl::StatusOr<int> CountGpus();

/// One line: what this program can run on here.
std::string DescribeWorkers();

/// Loads the model and makes room for the pages. `description` may be null.
///
/// Errors: FAILED_PRECONDITION (MODEL_INVALID, ATTENTION_UNSUPPORTED), RESOURCE_EXHAUSTED
///         (OUT_OF_MEMORY), INVALID_ARGUMENT (FIELD_INVALID) for options out of range and ranks
///         that do not divide the model; for GPUs also those of CreateCudaBackend
///         (runtime/ops/backends.h) and CreateNcclCollectives (runtime/device/collective.h).
/// Threads: the CPU's executor starts threads - 1 workers; see Executor for who may call it.
absl::StatusOr<std::unique_ptr<Executor>> CreateExecutor(const ExecutorOptions& given,
                                                         ModelDescription* description = nullptr);

}  // namespace videonsa
