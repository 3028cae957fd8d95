#pragma once

#include <cstdint>

namespace videonsa {

/// Chooses the next token of one sequence from its logits.
///
/// Order: repetition penalty, suppressed ids, temperature, top-k, top-p, min-p, draw.
/// Shapes: logits [vocab] fp32, changed in place; seen [num_seen] distinct ids of prompt and
/// answer;
///         suppressed [num_suppressed] ids that get -inf; scratch [vocab] ids
/// Units:  temperature 0 is greedy, ties to the lowest id; top_k 0, top_p 1, min_p 0 are off;
///         uniform in [0, 1) decides the draw.
struct SampleParams {
  float* logits = nullptr;
  int vocab = 0;
  const int32_t* seen = nullptr;
  int64_t num_seen = 0;
  float repetition_penalty = 1;
  const int32_t* suppressed = nullptr;
  int num_suppressed = 0;
  float temperature = 0;
  float top_p = 1;
  int top_k = 0;
  float min_p = 0;
  double uniform = 0;
  int32_t* scratch = nullptr;
};

/// Returns the chosen id. NaN logits never win; if nothing is left, id 0.
int32_t SampleToken(const SampleParams& params);

/// Log of the softmax normaliser of `logits`.
double LogSumExp(const float* logits, int vocab);

/// The `count` ids with the highest logits, best first, ties to the lower id; scratch [vocab].
void TopTokens(const float* logits, int vocab, int count, int32_t* scratch, int32_t* ids);

/// A number in [0, 1) that depends on `seed` and `step` only.
double UniformOf(uint64_t seed, uint64_t step);

}  // namespace videonsa
