#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine/cost_model.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// How much a worker is measured before it serves.
struct WarmUpOptions {
  /// Device seconds of all steps together, as predicted from those before; the first step, a
  /// prefill of 16 tokens, runs whatever it takes. 0: nothing is measured.
  double seconds = 0;
  int prefill_tokens = 512;      ///< longest slice
  int32_t vision_token_id = -1;  ///< pad of a clip's tokens; below 0: the vision tower is left out
};

/// Times steps of made-up sequences, one kind of work each: prefills of several lengths and pasts,
/// decode rows from one to sixteen with short and long caches, frames of a clip. What would take
/// longer than what is left of the time is left out; what the executor refuses, too. The first
/// step of a kind is no measure (memory is touched, kernels are made) where there are others.
///
/// Uses pages from 0 on and forgets all sequences again.
/// Requires: the executor knows no sequence.
/// Errors: the executor's: the device is lost.
absl::StatusOr<std::vector<CostSample>> MeasureCosts(Executor& executor,
                                                     const WarmUpOptions& options);

}  // namespace videonsa
