#include "runtime/executor/sampler.h"

#include <algorithm>
#include <utility>

#include "runtime/ops/sampling.h"

namespace videonsa {

Sampler::Sampler(int vocab_size, std::vector<int32_t> stop_tokens)
    : vocab_size_(vocab_size), stop_tokens_(std::move(stop_tokens)) {}

SampleTask Sampler::TaskOf(const SequenceState& state) const {
  const SamplingSettings& settings = state.spec.sampling;
  SampleTask task;
  task.seen = state.seen.data();
  task.num_seen = static_cast<int64_t>(state.seen.size());
  task.repetition_penalty = settings.repetition_penalty;
  task.suppressed = stop_tokens_.data();
  task.num_suppressed = settings.suppress_eos ? static_cast<int>(stop_tokens_.size()) : 0;
  task.temperature = settings.temperature;
  task.top_p = settings.top_p;
  task.top_k = settings.top_k;
  task.min_p = settings.min_p;
  task.uniform = UniformOf(settings.seed, static_cast<uint64_t>(state.num_sampled));
  task.num_logprobs = std::min(settings.num_logprobs, vocab_size_);
  return task;
}

SampledToken Sampler::TokenOf(const SequenceState& state, const SampleTask& task) const {
  SampledToken token;
  token.sequence = state.spec.id;
  token.token_id = task.token_id;
  token.is_stop_token =
      std::find(stop_tokens_.begin(), stop_tokens_.end(), task.token_id) != stop_tokens_.end();
  if (task.num_logprobs < 0) return token;
  for (const auto& [id, logprob] : task.best) {
    token.logprob.alternatives.push_back({id, logprob, {}});
  }
  token.logprob.token_id = task.token_id;
  token.logprob.logprob = task.logprob;
  return token;
}

}  // namespace videonsa
