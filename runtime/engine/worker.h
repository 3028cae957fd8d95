#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "runtime/base/bounded_queue.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Work for one executor, done in the order of the fields.
struct WorkerJob {
  std::vector<SequenceId> release;
  std::vector<SequenceSpec> add;
  StepPlan plan;  ///< nothing is run if it is empty
};

/// Sequences that the executor has forgotten, with what they spent.
struct SequencesReleased {
  std::vector<std::pair<SequenceId, AttentionAccount>> accounts;
};
/// A finished step. Slices of `rejected` sequences were taken out of it before it ran.
struct StepDone {
  StepResult result;
  std::vector<std::pair<SequenceId, absl::Status>> rejected;
};
/// The device is lost; the executor is not called again.
struct WorkerFailed {
  absl::Status status;
};
using WorkerEvent = std::variant<SequencesReleased, StepDone, WorkerFailed>;

/// Does jobs on an executor. A sequence that the executor refuses is reported once; its slices in
/// later jobs are skipped and its release is answered with an empty account.
///
/// Owner: one thread. Lifetime: the executor outlives it.
class JobRunner {
 public:
  explicit JobRunner(Executor* executor) : executor_(executor) {}
  /// Does `job` and reports; returns false once the device is lost.
  bool Run(WorkerJob job, const std::function<void(WorkerEvent)>& report);

 private:
  SequencesReleased Release(const std::vector<SequenceId>& ids);
  void SkipRefused(StepPlan& plan, std::vector<SequenceId>& skipped) const;

  Executor* const executor_;
  absl::flat_hash_set<SequenceId> refused_;
};

/// Thread that owns an executor and does jobs in order.
///
/// Threads: Submit from one thread; `report` is called from the worker's thread and must not wait
///          for it.
class Worker {
 public:
  /// `depth`: jobs that may be submitted and not yet taken.
  Worker(std::unique_ptr<Executor> executor, int depth, std::function<void(WorkerEvent)> report);
  /// Closes and waits for the thread.
  ~Worker();

  /// Requires: at most `depth` jobs are outstanding.
  void Submit(WorkerJob job);
  /// Lets the thread end after what is queued. Idempotent.
  void Close();

 private:
  void Loop();

  std::unique_ptr<Executor> executor_;  // worker thread only
  const std::function<void(WorkerEvent)> report_;
  BoundedQueue<WorkerJob> jobs_;
  std::thread thread_;
};

}  // namespace videonsa
