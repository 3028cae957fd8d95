#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/bounded_queue.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Work for one executor, done in the order of the fields.
struct WorkerJob {
  int worker = 0;
  int epoch = 0;  ///< failures of the worker that the sender knows of
  std::vector<SequenceId> release;
  std::vector<SequenceSpec> add;
  StepPlan plan;  ///< nothing is run if it is empty
};

/// Sequences that the executor has forgotten, with what they spent.
struct SequencesReleased {
  std::vector<std::pair<SequenceId, AttentionAccount>> accounts;
  int worker = 0;
};
/// A finished step. Slices of `rejected` sequences were taken out of it before it ran.
struct StepDone {
  StepResult result;
  std::vector<std::pair<SequenceId, absl::Status>> rejected;
  int worker = 0;
};
/// The device is lost; the executor is not called again and knows no sequence any more.
struct WorkerFailed {
  absl::Status status;
  int worker = 0;
};
/// How opening the failed worker's device again ended. OK: it takes jobs of the next epoch.
struct WorkerRestarted {
  absl::Status status;
  int worker = 0;
};
using WorkerEvent = std::variant<SequencesReleased, StepDone, WorkerFailed, WorkerRestarted>;

/// Opens a worker's device again. Called from the worker's thread; may take long.
using ExecutorFactory = std::function<absl::StatusOr<std::unique_ptr<Executor>>(int worker)>;

/// Does jobs on an executor. A sequence that the executor refuses is reported once; its slices in
/// later jobs are skipped and its release is answered with an empty account.
///
/// Owner: one thread. Lifetime: the executor outlives it.
class JobRunner {
 public:
  explicit JobRunner(Executor* executor, int worker = 0) : executor_(executor), worker_(worker) {}
  /// Does `job` and reports; returns false once the device is lost.
  bool Run(WorkerJob job, const std::function<void(WorkerEvent)>& report);

 private:
  SequencesReleased Release(const std::vector<SequenceId>& ids);
  void SkipRefused(StepPlan& plan, std::vector<SequenceId>& skipped) const;

  Executor* const executor_;
  const int worker_;
  absl::flat_hash_set<SequenceId> refused_;
};

/// Thread that owns an executor and does jobs in order. When the executor fails, it reports, drops
/// the jobs that were meant for it, and opens another one if it has a factory.
///
/// Threads: Submit from one thread; `report` is called from the worker's thread and must not wait
///          for it.
class Worker {
 public:
  struct Options {
    int index = 0;
    int depth = 1;                             ///< jobs that may be submitted and not yet taken
    ExecutorFactory restart;                   ///< may be null
    std::function<void(int worker)> on_start;  ///< called first by the thread; may be null
  };
  Worker(std::unique_ptr<Executor> executor, Options options,
         std::function<void(WorkerEvent)> report);
  /// Closes and waits for the thread.
  ~Worker();

  /// Requires: at most `depth` jobs are outstanding.
  void Submit(WorkerJob job);
  /// Lets the thread end after what is queued. Idempotent.
  void Close();

 private:
  void Loop();
  bool Restart();  // returns whether there is an executor again

  const Options options_;
  std::unique_ptr<Executor> executor_;  // worker thread only
  const std::function<void(WorkerEvent)> report_;
  BoundedQueue<WorkerJob> jobs_;
  std::thread thread_;
};

}  // namespace videonsa
