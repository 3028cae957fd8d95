#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/api/generate_request.h"
#include "tests/sim/device_model.h"

namespace videonsa::sim {

/// One request of a trace. Seconds.
struct SimRequest {
  double arrival = 0;
  double media_seconds = 0;  ///< decode and preprocess, before the engine can admit it
  double patience = 0;       ///< the client gives up without a first token after this
  double ttft_limit = 0;     ///< good if the first token comes within
  double gap_limit = 0;      ///< and 95 % of the gaps between tokens are within
  Priority priority = Priority::kStandard;
  int tenant = 0;
  int clip = -1;  ///< content shared with other requests of the tenant; -1: nobody else has it
  int output_tokens = 0;
  PromptLayout layout;
};

/// "mix": Poisson arrivals of short interactive, middling standard and long batch clips.
/// "bursts": the same requests, four times the mean rate in one minute of six.
/// "heavy": clip lengths with a Pareto tail (1.1) in every class, and one tenant with half of the
/// requests. "answers": interactive questions beside batch work whose answers are so long that
/// pages run out before time does.
const std::vector<std::string>& TraceNames();

/// Limits of a class, for everybody's requests.
struct ClassLimits {
  double ttft = 0;  ///< beside twice the request's time on an idle worker
  double gap = 0;
  double patience = 0;
};
ClassLimits LimitsOf(Priority priority);

/// `requests` requests for `workers` workers at `load` times what they can compute (prompts alone
/// on a worker, answers in batches of 16, nothing reused). Deterministic by seed. Errors:
/// INVALID_ARGUMENT for an unknown name.
absl::StatusOr<std::vector<SimRequest>> MakeTrace(absl::string_view name, int requests, int workers,
                                                  double load, uint64_t seed);

}  // namespace videonsa::sim
