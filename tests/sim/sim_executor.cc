#include "tests/sim/sim_executor.h"

#include <cmath>

#include "runtime/base/check.h"

namespace videonsa::sim {

absl::Status SimExecutor::AddSequence(SequenceSpec spec) {
  State state;
  int vision_tokens = 0;
  for (const VisionSpan& span : spec.vision_spans) vision_tokens += span.num_tokens;
  const int length = static_cast<int>(spec.token_ids.size());
  state.layout = {vision_tokens, length - vision_tokens - PromptLayout::kTextBefore};
  state.output_tokens = trace_[spec.sampling.seed].output_tokens;
  state.cancelled = std::move(spec.cancelled);
  state.outputs = static_cast<int>(spec.answer_ids.size());
  VNSA_CHECK(sequences_.emplace(spec.id, std::move(state)).second) << "added twice";
  return absl::OkStatus();
}

void SimExecutor::Sample(SequenceId id, State& state, StepResult& result) {
  SampledToken& token = result.tokens.emplace_back();
  token.sequence = id;
  token.is_stop_token = ++state.outputs >= state.output_tokens;
}

absl::StatusOr<StepResult> SimExecutor::Run(const StepPlan& plan) {
  StepResult result;
  result.step = plan.step;
  double vision = 0, prefill = 0, kv_tokens = 0;
  for (const VisionSlice& slice : plan.vision) {
    vision += device_.VisionSeconds(64.0 * (slice.t_end - slice.t_begin));
  }
  for (const PrefillSlice& slice : plan.prefill) {
    State& state = sequences_.at(slice.sequence);
    if (state.cancelled->load(std::memory_order_acquire)) {
      result.skipped.push_back(slice.sequence);
      continue;
    }
    const PromptLayout& layout = state.layout;
    prefill += device_.PrefillSeconds(slice.token_end - slice.token_begin,
                                      static_cast<double>(layout.PairsUpTo(slice.token_end) -
                                                          layout.PairsUpTo(slice.token_begin)));
    if (slice.token_end == layout.length() && state.outputs == 0) {
      Sample(slice.sequence, state, result);
    }
  }
  for (const SequenceId id : plan.decode) {
    State& state = sequences_.at(id);
    if (state.cancelled->load(std::memory_order_acquire)) {
      result.skipped.push_back(id);
      continue;
    }
    kv_tokens += state.layout.length() + state.outputs;
    Sample(id, state, result);
  }
  for (const ReplaySlice& slice : plan.replay) {
    const int64_t length = sequences_.at(slice.sequence).layout.length();
    kv_tokens += static_cast<double>((length + slice.begin) * (slice.end - slice.begin));
  }
  const double noise = std::exp(noise_(random_));
  const bool decodes = !plan.decode.empty() || !plan.replay.empty();
  result.vision_time = absl::Seconds(vision * noise);
  result.prefill_time = absl::Seconds(prefill * noise + (decodes ? 0 : device_.step_seconds));
  result.decode_time =
      absl::Seconds(decodes ? device_.DecodeSeconds(kv_tokens) * noise + device_.step_seconds : 0);
  return result;
}

}  // namespace videonsa::sim
