#pragma once

#include <cstdint>
#include <vector>

#include "runtime/executor/sequence_state.h"
#include "runtime/ops/sample_task.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Says how a sequence's settings turn a row of logits into a token, and reads the result.
///
/// A draw depends on the sequence's seed and the number of tokens before it only.
/// Owner: the worker thread.
class Sampler {
 public:
  Sampler(int vocab_size, std::vector<int32_t> stop_tokens);

  /// The next token's task; refers to the state until it is done.
  SampleTask TaskOf(const SequenceState& state) const;
  SampledToken TokenOf(const SequenceState& state, const SampleTask& task) const;

 private:
  const int vocab_size_;
  const std::vector<int32_t> stop_tokens_;
};

}  // namespace videonsa
