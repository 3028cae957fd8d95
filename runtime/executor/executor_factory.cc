#include "runtime/executor/executor_factory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/executor/model_executor.h"
#include "runtime/executor/tensor_parallel_executor.h"
#include "runtime/ops/backends.h"

namespace videonsa {
namespace {

std::string LastPart(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

ModelDescription Describe(const ExecutorOptions& options, ModelExecutor& executor) {
  const Model& model = executor.model();
  const ModelConfig& config = model.config();
  ModelDescription description;
  description.name =
      LastPart(options.dummy_config_path.empty() ? options.model_dir : options.dummy_config_path);
  description.digest = model.digest();
  description.random_weights = model.random_weights();
  description.compute_type = executor.backend().activation_type() == DType::kBF16 ? "bf16" : "f32";
  description.device = executor.backend().device().name();
  if (options.tensor_parallel > 1 && options.device == DeviceKind::kCuda) {
    description.device = absl::StrCat(options.tensor_parallel, " x ", description.device);
  }
  description.semantics = config.attention.semantics;
  description.stop_token_ids = config.tokens.stop;
  description.image_pad_id = config.tokens.image_pad;
  description.video_pad_id = config.tokens.video_pad;
  description.vision_start_id = config.tokens.vision_start;
  description.vision_end_id = config.tokens.vision_end;
  description.tokens_per_second = config.vision.tokens_per_second;
  const GenerationDefaults& generation = config.generation;
  description.do_sample = generation.do_sample;
  description.temperature = generation.temperature;
  description.top_p = generation.top_p;
  description.top_k = generation.top_k;
  description.repetition_penalty = generation.repetition_penalty;
  description.max_new_tokens = generation.max_new_tokens;
  description.min_pixels = config.preprocessor.min_pixels;
  description.max_pixels = config.preprocessor.max_pixels;
  std::copy_n(config.preprocessor.mean, 3, description.image_mean);
  std::copy_n(config.preprocessor.stddev, 3, description.image_std);
  return description;
}

}  // namespace

absl::Status CheckGpu(int ordinal) { return CheckCudaBackend(ordinal); }

absl::StatusOr<int> CountGpus() { return CountCudaBackends(); }

std::string DescribeWorkers() { return DescribeBackends(); }

absl::StatusOr<std::unique_ptr<Executor>> CreateExecutor(const ExecutorOptions& given,
                                                         ModelDescription* description) {
  ExecutorOptions options = given;
  options.want_digest = description != nullptr;
  if (options.tensor_parallel == 1) {
    VNSA_ASSIGN_OR_RETURN(std::unique_ptr<ModelExecutor> executor, ModelExecutor::Create(options));
    if (description != nullptr) *description = Describe(options, *executor);
    return executor;
  }
  VNSA_ASSIGN_OR_RETURN(ModelRanks ranks, OpenRanks(options));
  if (description != nullptr) *description = Describe(options, *ranks.executors[0]);
  std::vector<std::unique_ptr<Executor>> executors;
  for (auto& executor : ranks.executors) executors.push_back(std::move(executor));
  return std::make_unique<TensorParallelExecutor>(std::move(ranks.group), std::move(executors));
}

}  // namespace videonsa
