#include "runtime/engine/worker.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

bool IsEmpty(const StepPlan& plan) {
  return plan.vision.empty() && plan.prefill.empty() && plan.decode.empty() && plan.replay.empty();
}

}  // namespace

SequencesReleased JobRunner::Release(const std::vector<SequenceId>& ids) {
  SequencesReleased released;
  released.worker = worker_;
  for (const SequenceId id : ids) {
    if (refused_.erase(id) > 0) {
      released.accounts.emplace_back(id, AttentionAccount{});
      continue;
    }
    released.accounts.emplace_back(id, executor_->Account(id));
    executor_->ReleaseSequence(id);
  }
  return released;
}

void JobRunner::SkipRefused(StepPlan& plan, std::vector<SequenceId>& skipped) const {
  const auto refused = [&](SequenceId id) {
    if (!refused_.contains(id)) return false;
    skipped.push_back(id);
    return true;
  };
  std::erase_if(plan.vision, [&](const VisionSlice& slice) { return refused(slice.sequence); });
  std::erase_if(plan.prefill, [&](const PrefillSlice& slice) { return refused(slice.sequence); });
  std::erase_if(plan.decode, refused);
  std::erase_if(plan.replay, [&](const ReplaySlice& slice) { return refused(slice.sequence); });
}

bool JobRunner::Run(WorkerJob job, const std::function<void(WorkerEvent)>& report) {
  if (!job.release.empty()) report(Release(job.release));
  StepDone done;
  done.worker = worker_;
  for (SequenceSpec& spec : job.add) {
    const SequenceId id = spec.id;
    if (absl::Status status = executor_->AddSequence(std::move(spec)); !status.ok()) {
      refused_.insert(id);
      done.rejected.emplace_back(id, std::move(status));
    }
  }
  std::vector<SequenceId> skipped;
  if (!refused_.empty()) SkipRefused(job.plan, skipped);
  if (!IsEmpty(job.plan)) {
    absl::StatusOr<StepResult> result = executor_->Run(job.plan);
    if (!result.ok()) {
      report(WorkerFailed{std::move(result).status(), worker_});
      return false;
    }
    done.result = *std::move(result);
  }
  done.result.step = job.plan.step;
  done.result.skipped.insert(done.result.skipped.end(), skipped.begin(), skipped.end());
  report(std::move(done));
  return true;
}

Worker::Worker(std::unique_ptr<Executor> executor, Options options,
               std::function<void(WorkerEvent)> report)
    : options_(std::move(options)),
      executor_(std::move(executor)),
      report_(std::move(report)),
      jobs_(options_.depth) {
  thread_ = std::thread([this] { Loop(); });
}

Worker::~Worker() {
  Close();
  thread_.join();
}

void Worker::Submit(WorkerJob job) {
  VNSA_CHECK(jobs_.TryPush(std::move(job)) || jobs_.closed()) << "I9: more jobs than the depth";
}

void Worker::Close() { jobs_.Close(); }

bool Worker::Restart() {
  executor_.reset();  // first: two of them might not fit
  absl::StatusOr<std::unique_ptr<Executor>> executor = options_.restart(options_.index);
  if (executor.ok()) executor_ = *std::move(executor);
  // Jobs of the failed device are still in the queue at worst; the engine sends none of the next
  // epoch before it hears of this.
  while (jobs_.TryPop()) {
  }
  report_(WorkerRestarted{executor.status(), options_.index});
  return executor_ != nullptr;
}

void Worker::Loop() {
  if (options_.on_start != nullptr) options_.on_start(options_.index);
  int epoch = 0;
  while (true) {
    JobRunner runner(executor_.get(), options_.index);
    bool alive = true;
    while (alive) {
      std::optional<WorkerJob> job = jobs_.Pop();
      if (!job) return;
      if (job->epoch == epoch) alive = runner.Run(*std::move(job), report_);
    }
    ++epoch;
    if (options_.restart == nullptr || jobs_.closed() || !Restart()) return;
  }
}

}  // namespace videonsa
