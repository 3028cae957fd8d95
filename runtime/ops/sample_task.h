#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace videonsa {

/// One row of logits on its way to a token. Host memory; outlives the step.
///
/// Order of what is applied and the meaning of settings: kernels/cpu/sample_token.h.
struct SampleTask {
  const int32_t* seen = nullptr;  ///< [num_seen] distinct ids of prompt and answer
  int64_t num_seen = 0;
  float repetition_penalty = 1;
  const int32_t* suppressed = nullptr;  ///< [num_suppressed] ids that get -inf
  int num_suppressed = 0;
  float temperature = 0;
  float top_p = 1;
  int top_k = 0;
  float min_p = 0;
  double uniform = 0;
  int num_logprobs = -1;  ///< -1: none; 0: of the chosen token; n: with the n best

  // Results. Log-probabilities are the model's, before penalty and temperature.
  int32_t token_id = 0;
  float logprob = 0;                            ///< of token_id, if asked for
  std::vector<std::pair<int32_t, float>> best;  ///< id and log-probability, best first
};

}  // namespace videonsa
