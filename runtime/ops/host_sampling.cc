#include "runtime/ops/host_sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/sample_token.h"
#include "runtime/base/check.h"

namespace videonsa {

void SampleOnHost(float* logits, int vocab, SampleTask& task, std::vector<int32_t>& scratch) {
  scratch.resize(2 * static_cast<size_t>(vocab));
  int32_t* const order = scratch.data();
  int32_t* const best = order + vocab;
  for (int id = 0; id < vocab; ++id) {
    if (std::isnan(logits[id])) logits[id] = -std::numeric_limits<float>::infinity();
  }
  double normaliser = 0;
  task.best.clear();
  if (task.num_logprobs >= 0) {
    normaliser = LogSumExp(logits, vocab);
    const int count = std::min(task.num_logprobs, vocab);
    TopTokens(logits, vocab, count, order, best);
    for (int i = 0; i < count; ++i) {
      task.best.emplace_back(best[i], static_cast<float>(logits[best[i]] - normaliser));
    }
  }
  // The penalty and the ban change logits in place: the chosen token's own value is found again.
  SampleParams params;
  params.logits = logits;
  params.vocab = vocab;
  params.seen = task.seen;
  params.num_seen = task.num_seen;
  params.repetition_penalty = task.repetition_penalty;
  params.suppressed = task.suppressed;
  params.num_suppressed = task.num_suppressed;
  params.temperature = task.temperature;
  params.top_p = task.top_p;
  params.top_k = task.top_k;
  params.min_p = task.min_p;
  params.uniform = task.uniform;
  params.scratch = order;
  task.token_id = SampleToken(params);
  if (task.num_logprobs < 0) return;
  float logit = logits[task.token_id];
  if (std::find(task.seen, task.seen + task.num_seen, task.token_id) != task.seen + task.num_seen) {
    logit = logit > 0 ? logit * task.repetition_penalty : logit / task.repetition_penalty;
  }
  task.logprob = static_cast<float>(logit - normaliser);
}

}  // namespace videonsa
