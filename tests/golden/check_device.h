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

/// The blocks that some rows of a prompt chose in a layer.
struct LayerChoice {
  int layer = 0;
  int row_begin = 0;
  std::vector<int32_t> blocks;
};

/// Rotated queries and the keys of a layer, all rows of a prompt.
struct LayerRows {
  std::vector<float> q, k;
};

/// A greedy answer, the logits of every token, and the blocks that the prompt's rows chose in every
/// layer.
struct AnswerTrace {
  AttentionSettings attention;
  AttentionShape shape;
  std::vector<int32_t> ids;
  std::vector<int32_t> suppressed;  ///< ids that could not be sampled, whatever their logits
  std::vector<std::vector<float>> logits;
  std::vector<LayerChoice> choices;
  std::vector<LayerRows> layers;  ///< on a CPU in fp32, else empty
};

/// Adds rows to `layer`; `kv` as the CPU lays it out.
void KeepRows(const TensorView& q, int row_begin, const PagedKv& kv, Backend& backend,
              LayerRows& layer);

/// Choices of causal_nsa that differ in the first layer where any do. Rows and KV heads there do
/// not depend on each other; whatever comes later has another past.
struct ChoiceTies {
  int layer = -1;  ///< -1: all choices are equal
  int all = 0;
  int differing = 0;
  int decided = 0;      ///< whose scores are further apart than their rounding in fp32
  double farthest = 0;  ///< in units of that rounding

  std::string Text() const;
};
/// Scores in fp64 from the queries and keys of `cpu`.
ChoiceTies FirstDifferences(const AnswerTrace& cpu, const AnswerTrace& gpu);

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
/// further apart than twice what the logits differ by. In fp32 it also fails if a choice of blocks
/// differs whose scores are further apart than their rounding; where only others differ, logits and
/// ids are not judged, because such a choice is a step and not a small error. `cpu_bf16`: what the
/// CPU answers in bf16, if the GPU did; null: fp32.
void CompareTraces(const std::string& label, const AnswerTrace& cpu, const AnswerTrace& gpu,
                   const AnswerTrace* cpu_bf16, Reporter& reporter);

}  // namespace videonsa::golden
