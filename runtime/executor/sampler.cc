#include "runtime/executor/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "runtime/ops/sampling.h"

namespace videonsa {

Sampler::Sampler(int vocab_size, std::vector<int32_t> stop_tokens)
    : vocab_size_(vocab_size),
      stop_tokens_(std::move(stop_tokens)),
      order_(static_cast<size_t>(vocab_size)) {}

SampledToken Sampler::Sample(const SequenceState& state, float* logits) {
  const SamplingSettings& settings = state.spec.sampling;
  for (int id = 0; id < vocab_size_; ++id) {
    if (std::isnan(logits[id])) logits[id] = -std::numeric_limits<float>::infinity();
  }
  SampledToken token;
  token.sequence = state.spec.id;
  TokenLogprob& logprob = token.logprob;
  double normaliser = 0;
  if (settings.num_logprobs >= 0) {
    normaliser = LogSumExp(logits, vocab_size_);
    best_.resize(static_cast<size_t>(std::min(settings.num_logprobs, vocab_size_)));
    TopTokens(logits, vocab_size_, static_cast<int>(best_.size()), order_.data(), best_.data());
    for (int32_t id : best_) {
      logprob.alternatives.push_back({id, static_cast<float>(logits[id] - normaliser), {}});
    }
  }
  // The penalty and the ban change logits in place: the chosen token's own value is read first.
  SampleParams params;
  params.logits = logits;
  params.vocab = vocab_size_;
  params.seen = state.seen.data();
  params.num_seen = static_cast<int64_t>(state.seen.size());
  params.repetition_penalty = settings.repetition_penalty;
  params.suppressed = stop_tokens_.data();
  params.num_suppressed = settings.suppress_eos ? static_cast<int>(stop_tokens_.size()) : 0;
  params.temperature = settings.temperature;
  params.top_p = settings.top_p;
  params.top_k = settings.top_k;
  params.min_p = settings.min_p;
  params.uniform = UniformOf(settings.seed, static_cast<uint64_t>(state.num_sampled));
  params.scratch = order_.data();
  token.token_id = SampleToken(params);
  if (settings.num_logprobs >= 0) {
    logprob.token_id = token.token_id;
    float logit = logits[token.token_id];
    if (!state.seen_mask.empty() && state.seen_mask[static_cast<size_t>(token.token_id)]) {
      const float p = settings.repetition_penalty;
      logit = logit > 0 ? logit * p : logit / p;
    }
    logprob.logprob = static_cast<float>(logit - normaliser);
  }
  token.is_stop_token =
      std::find(stop_tokens_.begin(), stop_tokens_.end(), token.token_id) != stop_tokens_.end();
  return token;
}

}  // namespace videonsa
