#pragma once

#include <cstdint>
#include <vector>

#include "runtime/executor/sequence_state.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Turns a row of logits into a token, as a sequence's settings say.
///
/// A draw depends on the sequence's seed and the number of tokens before it only.
/// Log-probabilities are those of the model, before penalty and temperature.
/// Owner: the worker thread.
class Sampler {
 public:
  Sampler(int vocab_size, std::vector<int32_t> stop_tokens);

  /// Shapes: logits [vocab] fp32, overwritten.
  SampledToken Sample(const SequenceState& state, float* logits);

 private:
  const int vocab_size_;
  const std::vector<int32_t> stop_tokens_;
  std::vector<int32_t> order_;  // [vocab]
  std::vector<int32_t> best_;
};

}  // namespace videonsa
