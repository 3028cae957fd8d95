#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/clock.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// What a fake executor does beside its work; set before it is used, hooks may be called from the
/// worker thread.
struct FakeExecutorOptions {
  ExecutorInfo info;
  /// The n-th Run (from 1) and all later ones fail; 0: never.
  int fail_at_run = 0;
  /// AddSequence refuses when this returns true.
  std::function<bool(const SequenceSpec&)> refuse;
  /// Called at the start of each Run, outside all locks.
  std::function<void(const StepPlan&)> on_run;
  /// Moved by the simulated time of each step, if set.
  FakeClock* clock = nullptr;
};

/// Layers 4, pages 64, context 4096: small enough that everything happens.
ExecutorInfo SmallExecutorInfo();

/// An executor without a model. Its KV pages hold a hash per row, chained over everything before
/// the row; a token is a hash of what the sequence's pages hold, so a page that two sequences
/// write, a slice out of order, a wrong cached prefix or a lost row shows as a wrong token. Checks
/// the protocol of StepPlan as it goes.
class FakeExecutor : public Executor {
 public:
  explicit FakeExecutor(FakeExecutorOptions options);

  const ExecutorInfo& info() const override { return options_.info; }
  absl::Status AddSequence(SequenceSpec spec) override;
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;
  AttentionAccount Account(SequenceId sequence) const override;
  void ReleaseSequence(SequenceId sequence) override;

  /// Sequences added and not released.
  int num_sequences() const { return num_sequences_.load(); }
  int num_runs() const { return num_runs_.load(); }

  /// The answer that a sequence run alone would give, last token included.
  static std::vector<int32_t> AnswerAlone(const SequenceSpec& spec, const ExecutorInfo& info);
  /// Whether the fake takes `token` for an end token: one in 61.
  static bool IsStopToken(int32_t token) { return token % 61 == 7; }

 private:
  struct State {
    SequenceSpec spec;
    std::vector<int> visual_t_done;
    int tokens_done = 0;
    int layers_done = 0;
    int outputs = 0;
    int replayed = 0;
    int32_t last_token = 0;
    int64_t rows_run = 0;
  };
  State& At(SequenceId id);
  void RunVision(const VisionSlice& slice);
  void RunPrefill(const PrefillSlice& slice, StepResult& result);
  void RunReplay(const ReplaySlice& slice, StepResult& result);
  void WriteRow(State& state, int row, uint64_t content);
  void Sample(State& state, StepResult& result);
  bool Skipped(State& state, StepResult& result) const;

  FakeExecutorOptions options_;
  std::vector<uint64_t> rows_;  // [num_pages, kPageTokens]
  absl::flat_hash_map<SequenceId, State> sequences_;
  std::atomic<int> num_sequences_{0};
  std::atomic<int> num_runs_{0};
};

}  // namespace videonsa
