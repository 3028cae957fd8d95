#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "runtime/api/generate_request.h"
#include "runtime/api/generate_result.h"
#include "runtime/engine/attention_pairs.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// What a checkpoint and the server say where a request says nothing.
struct GenerationDefaults {
  bool do_sample = false;  ///< false: greedy unless the request sets a temperature
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> repetition_penalty;
  int max_output_tokens = 256;     ///< if the request sets none
  int output_tokens_limit = 4096;  ///< ceiling of a request
};

/// Sampling settings of a request with every value decided.
struct ResolvedGeneration {
  SamplingSettings sampling;
  GenerationParams effective;  ///< the same as a request would say it; every optional is set
  bool limited_by_context = false;
};

/// Decides every sampling value: the request's, else the checkpoint's, else the server's.
///
/// An unset output length shrinks to what the context leaves beside `prompt_tokens`; a set one does
/// not. `random_seed` is used if the request sets none.
/// Errors: INVALID_ARGUMENT (FIELD_INVALID) for an output length above the ceiling,
///         (CONTEXT_TOO_LONG) if the prompt leaves no room for a single token.
absl::StatusOr<ResolvedGeneration> ResolveGeneration(const GenerationParams& params,
                                                     const GenerationDefaults& defaults,
                                                     int64_t prompt_tokens,
                                                     int64_t max_context_tokens,
                                                     uint64_t random_seed);

/// Attention settings of a request with every value decided.
struct ResolvedAttention {
  AttentionSettings settings;
  EffectiveAttention effective;
  PairForecast forecast;
};

/// Decides which attention runs over the prompt of `spec` (tokens, positions and spans set).
///
/// A checkpoint runs as it was trained, or dense; one that was trained dense also runs the
/// training-free patterns, which take no budget (their settings are fixed and they choose from the
/// data). `max_budget_fraction` lowers selected_blocks, then window_tokens, until the predicted
/// account fits. A prompt without visuals is dense in both native sparse semantics (attention.md
/// section 4) and is run and reported as such. Evidence needs visuals.
/// Errors: INVALID_ARGUMENT (FIELD_INVALID, ATTENTION_UNSUPPORTED, BUDGET_UNREACHABLE).
absl::StatusOr<ResolvedAttention> ResolveAttention(const AttentionParams& params,
                                                   const ReportParams& report,
                                                   const ExecutorInfo& info,
                                                   const SequenceSpec& spec);

}  // namespace videonsa
