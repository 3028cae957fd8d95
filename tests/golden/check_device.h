#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/executor/model_executor.h"
#include "tests/golden/reporter.h"

namespace videonsa::golden {

/// Largest ||gpu - cpu|| / ||cpu|| of a row of logits. fp32: sums in another order through a few
/// layers. bf16: 2^-9 a rounding, a handful of roundings a layer, and blocks chosen otherwise where
/// scores are close; how much that is depends on the model, so the CPU's own bf16 is the measure
/// where it is off by more.
inline constexpr double kExactError = 1e-4;
inline constexpr double kBf16Error = 5e-2;
inline constexpr double kOfCpuBf16 = 2;

/// A greedy answer, the logits of every token, and the blocks that the prompt's rows chose in every
/// layer.
struct AnswerTrace {
  std::vector<int32_t> ids;
  std::vector<int32_t> suppressed;  ///< ids that could not be sampled, whatever their logits
  std::vector<std::vector<float>> logits;
  std::vector<int32_t> blocks;
};

/// An executor with room for the goldens' prompts.
absl::StatusOr<std::unique_ptr<ModelExecutor>> MakeExecutor(const std::string& model_dir,
                                                            DeviceKind device, ComputeType type);

/// Text, `grid` as a clip (none if it has no patches), text; deterministic in `seed`.
SequenceSpec MadeUpPrompt(const ModelConfig& config, const ExecutorInfo& info, uint64_t seed,
                          int text, PatchGrid grid);

/// 64 prompts of every kind that come and go in one batch on the GPU, beside each of them alone.
void CheckTogether(const std::string& model_dir, Reporter& reporter);

/// Answers `spec` (its id and pages are replaced) alone.
absl::StatusOr<AnswerTrace> TraceAnswer(ModelExecutor& executor, SequenceSpec spec);

/// Records how far a GPU's answer agrees with the CPU's in fp32. Fails if a row of logits is
/// further off than the type allows, or if an id differs although the CPU's best two logits are
/// further apart than twice what the logits differ by. `cpu_bf16`: what the CPU answers in bf16, if
/// the GPU did; null: fp32.
void CompareTraces(const std::string& label, const AnswerTrace& cpu, const AnswerTrace& gpu,
                   const AnswerTrace* cpu_bf16, Reporter& reporter);

}  // namespace videonsa::golden
