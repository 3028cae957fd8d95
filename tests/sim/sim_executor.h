#pragma once

#include <random>

#include "absl/container/flat_hash_map.h"
#include "runtime/step/executor.h"
#include "tests/sim/trace.h"

namespace videonsa::sim {

/// An executor that computes nothing but the time a step would take.
///
/// SamplingSettings::seed is the request's number in the trace, where the length of its answer is
/// looked up.
class SimExecutor : public Executor {
 public:
  /// `trace` outlives it. Durations vary by a log-normal factor of 5 %.
  SimExecutor(const std::vector<SimRequest>& trace, uint64_t seed)
      : trace_(trace), info_(H200Info()), random_(seed) {}

  const ExecutorInfo& info() const override { return info_; }
  absl::Status AddSequence(SequenceSpec spec) override;
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;
  AttentionAccount Account(SequenceId sequence) const override { return {}; }
  void ReleaseSequence(SequenceId sequence) override { sequences_.erase(sequence); }

 private:
  struct State {
    PromptLayout layout;
    int output_tokens = 0;
    std::shared_ptr<const std::atomic<bool>> cancelled;
    int outputs = 0;
  };
  void Sample(SequenceId id, State& state, StepResult& result);

  const std::vector<SimRequest>& trace_;
  const ExecutorInfo info_;
  const DeviceModel device_;
  absl::flat_hash_map<SequenceId, State> sequences_;
  std::mt19937_64 random_;
  std::normal_distribution<double> noise_{0, 0.05};
};

}  // namespace videonsa::sim
