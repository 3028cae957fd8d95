#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/engine/engine_core.h"
#include "tests/sim/log_histogram.h"
#include "tests/sim/trace.h"

namespace videonsa::sim {

/// A policy to compare, as options of the product's engine.
///
/// "first-come": arrival order, whole prompts in one step. "token-budget": arrival order, prefills
/// of 2,048 tokens a step beside all decode rows. "ours": the product as it ships.
struct Policy {
  std::string name;
  EngineOptions engine;
};
std::vector<Policy> Policies(int workers);

/// Sets one option of a policy from "name=value"; false if there is no such option.
bool SetOption(absl::string_view assignment, EngineOptions& options);

/// What became of one class of requests.
struct ClassResult {
  int64_t requests = 0;
  int64_t answered = 0;
  int64_t gave_up = 0;  ///< no first token within the client's patience
  int64_t good = 0;     ///< answered within the limits
  LogHistogram ttft;
  LogHistogram gap;
  double longest_wait = 0;  ///< from arrival to the first token or to giving up
};

/// What a policy made of a trace.
struct SimResult {
  std::string policy;
  std::string trace;
  std::array<ClassResult, 3> by_priority;  ///< by Priority
  double seconds = 0;                      ///< simulated, from the first arrival to the last end
  double arrival_seconds = 0;              ///< until the last arrival
  double good_per_second = 0;              ///< over arrival_seconds
  double busy = 0;                         ///< mean share of time that workers computed
  double pages_mean = 0, pages_peak = 0;   ///< share of all pages that requests held
  double tenant_fairness = 0;              ///< Jain's index of the good share of each tenant
  double cost_error = 0;                   ///< of the engine's cost model, at the end
  int64_t preemptions = 0;
  int64_t reused_tokens = 0, prompt_tokens = 0, tokens = 0, steps = 0;
  double real_seconds = 0;  ///< of this machine

  int64_t total(int64_t ClassResult::*field) const {
    int64_t sum = 0;
    for (const ClassResult& result : by_priority) sum += result.*field;
    return sum;
  }
};

/// Runs `trace` through one EngineCore with `workers` simulated devices.
SimResult Simulate(const std::vector<SimRequest>& trace, const std::string& trace_name,
                   const Policy& policy, int workers, uint64_t seed);

/// Tables for people, and schema "videonsa.sim/1".
std::string ResultsText(const std::vector<SimResult>& results);
std::string ResultsJson(const std::vector<SimResult>& results);

}  // namespace videonsa::sim
