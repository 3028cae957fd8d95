#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/device/collective.h"
#include "runtime/executor/executor_factory.h"
#include "runtime/executor/model_executor.h"
#include "runtime/executor/rank_team.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Runs step plans on several ranks that share one model: each gets the same calls at the same time
/// and does its part of every layer.
///
/// Ranks never decide for themselves whether to go on: `cancelled` is read once a step for all, and
/// a visual's rows are taken once for all. Every rank samples from the same logits; results are
/// rank 0's. The first rank that fails ends the waits of the others, and the step with
/// UNAVAILABLE.
/// Owner: as Executor. Each rank's calls come from one thread, rank 0's from the caller's.
class TensorParallelExecutor : public Executor {
 public:
  /// `ranks` are the executors of the group's ranks, of one model. Bytes in info() are those of all
  /// ranks together, pages and longest context what every rank has.
  TensorParallelExecutor(std::unique_ptr<CollectiveGroup> group,
                         std::vector<std::unique_ptr<Executor>> ranks);
  ~TensorParallelExecutor() override;

  const ExecutorInfo& info() const override { return info_; }
  absl::Status AddSequence(SequenceSpec spec) override;
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;
  AttentionAccount Account(SequenceId sequence) const override;
  void ReleaseSequence(SequenceId sequence) override;

 private:
  // The caller's flag, and what ranks see of it.
  struct CancelFlag {
    std::shared_ptr<const std::atomic<bool>> real;
    std::shared_ptr<std::atomic<bool>> seen;
  };

  absl::Status CheckAgreement() const;

  const std::unique_ptr<CollectiveGroup> group_;
  std::vector<std::unique_ptr<Executor>> ranks_;  // end before the group
  RankTeam team_;
  ExecutorInfo info_;
  absl::flat_hash_map<SequenceId, CancelFlag> flags_;
  std::vector<absl::StatusOr<StepResult>> results_;  // of one step, by rank
};

/// Joins the devices of `options` and loads each rank's part of the model, all at once.
///
/// Errors: as CreateExecutor; INVALID_ARGUMENT (FIELD_INVALID) if the ranks do not divide the
///         model's KV heads.
struct ModelRanks {
  std::unique_ptr<CollectiveGroup> group;
  std::vector<std::unique_ptr<ModelExecutor>> executors;
};
absl::StatusOr<ModelRanks> OpenRanks(const ExecutorOptions& options);

}  // namespace videonsa
