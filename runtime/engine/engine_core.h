#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/base/clock.h"
#include "runtime/engine/admission.h"
#include "runtime/engine/cost_model.h"
#include "runtime/engine/lane.h"
#include "runtime/engine/messages.h"
#include "runtime/engine/preemption.h"
#include "runtime/engine/scheduler.h"
#include "runtime/engine/sequence.h"
#include "runtime/engine/waiting_queue.h"
#include "runtime/engine/worker.h"
#include "runtime/telemetry/metric_sets.h"

namespace videonsa {

struct EngineOptions {
  int num_workers = 1;    ///< of equal devices
  bool restarts = false;  ///< a failed worker will report WorkerRestarted
  int max_running = 64;   ///< admitted sequences, of all workers together
  int max_waiting = 256;  ///< requests before admission, media stage included
  int plan_depth = 1;     ///< steps submitted and not done; 2 hides the engine behind the device
  StepBudget step;
  /// Steps timed before (warm_up.h), of all workers: the cost model begins with them.
  std::vector<CostSample> cost_samples;
  WaitingOrder order;
  /// Every so many steps the prefill that has received least goes first, so that none that was
  /// admitted stands still; 0: never.
  int fair_every = 8;
  /// A request is bound to a worker when the prefills there that rank before it are predicted to
  /// take less than so many full steps, or when the worker has room left in its steps.
  double bind_within_steps = 2;
  int max_bypasses = 16;  ///< requests that may overtake a head of the queue that does not fit yet
  /// How often one sequence may be put back in the queue for requests of higher classes; 0: never.
  int max_preemptions = 3;
  int64_t hidden_bytes = int64_t{1} << 30;  ///< rows kept by layer-wise prefills
  /// Share of a worker's pages that sessions may keep, in all and one tenant's.
  double pinned_share = 0.5;
  double tenant_pinned_share = 0.25;
};

/// Who hears of the instants that decide whether the door may let another one in, and another
/// message.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnAdmitted(RequestId id) = 0;
  /// It was admitted and waits again.
  virtual void OnPreempted(RequestId id) = 0;
  virtual void OnEnded(RequestId id) = 0;
  /// The engine is about to look at the request's patch sources: a change from now on is news.
  virtual void OnMediaSeen(RequestId id) = 0;
};

/// The engine's account of itself.
struct EngineSnapshot {
  int waiting_media = 0;
  int waiting = 0;
  int running = 0;
  int pages_total = 0;
  int pages_used = 0;                      ///< held by sequences or by the prefix index
  int pages_cached = 0;                    ///< of those: held by the prefix index alone
  int pages_pinned = 0;                    ///< of those: held by sessions
  int waiting_by_priority[3] = {0, 0, 0};  ///< ready, not admitted; by Priority
  double backlog_seconds = 0;              ///< predicted work of everything admitted or ready
  uint64_t steps = 0;
  int64_t preemptions = 0;  ///< sequences put back in the queue
  int workers = 0;
  int workers_serving = 0;
  std::optional<CostModel> cost;
  absl::Status failure;  ///< not OK while no worker serves
  bool lost = false;     ///< and none will again
};

/// The engine without its thread: takes messages, gives jobs. Deterministic given its clock.
///
/// One queue feeds all workers: a request is bound to one when it is admitted, to the one that is
/// predicted to reach its first token first, counting the pages and features that it holds.
///
/// Owner: engine thread only.
/// Invariants: I6-I11, I15, I16 of runtime/README.md.
class EngineCore {
 public:
  /// `observer` may be null; it and `clock` outlive the core.
  EngineCore(const EngineOptions& options, const ExecutorInfo& info, const Clock& clock,
             EngineObserver* observer, EngineMetrics metrics = {});

  void Handle(EngineMessage message);
  /// What some worker should do next; nothing if all have plan_depth jobs outstanding or there is
  /// nothing to do. The caller submits it to WorkerJob::worker.
  std::optional<WorkerJob> NextJob();
  /// When Handle(TickMessage) is due at the latest; infinite if nobody has a deadline.
  absl::Duration NextDeadline() const;

  EngineSnapshot Snapshot() const;
  const AdmissionPolicy& admission(int worker = 0) const { return *lanes_[worker].admission; }
  int num_open() const { return static_cast<int>(sequences_.size()); }
  /// Sets the gauges to what is true now; linear in the pages of the prefix index.
  void UpdateGauges() const;
  /// Checks what can be checked at any time between calls (I1, I6, I7, I8); linear.
  void CheckInvariants() const;

 private:
  void CheckLane(const Lane& lane) const;
  void On(SubmitMessage message);
  void On(ReadyMessage message);
  void On(MediaMessage message);
  void On(FailMessage message);
  void On(StopMessage message);
  void On(CancelMessage message);
  void On(EndAllMessage message);
  void On(UnpinMessage message);
  void On(TickMessage message) {}
  void On(SequencesReleased event);
  void On(StepDone event);
  void On(WorkerFailed event);
  void On(WorkerRestarted event);

  Sequence* Find(RequestId id);
  void ExpireDeadlines();
  absl::Status CheckDeadline(const Sequence& sequence) const;
  absl::Status CheckPin(const Sequence& sequence);
  void PredictCost(Sequence& sequence) const;

  void Admit();
  bool AdmitOne();
  enum class Start { kStarted, kNoRoom, kBusy };
  /// Binds a sequence to the best worker: kNoRoom if none has the memory, kBusy if those that have
  /// would not get to it soon.
  Start TryStart(Sequence& sequence);
  bool TryBind(Sequence& sequence, Lane& lane);
  void Bind(Sequence& sequence, Lane& lane);

  /// Whether a request of a higher class waits than some that runs.
  bool MayPreempt() const;
  /// Lets sequences of lower classes leave for one that has no room (I15, I16).
  void TryPreempt(Sequence& sequence);
  Shortage ShortageOn(const Lane& lane, const Sequence& sequence) const;
  std::vector<SequenceId> VictimsOn(const Lane& lane, const Sequence& sequence, double* lost) const;
  double SecondsLost(const Sequence& sequence) const;
  /// Predicted, for the rows of its answer so far.
  double ReplaySeconds(const Sequence& sequence) const;
  /// Starts those for whom all have left.
  void AdmitBeneficiaries();
  /// The beneficiary needs its victims no more.
  void StopLeaving(Sequence& beneficiary);
  void ReleaseVictims(Lane& lane, WorkerJob& job);
  void Leave(Sequence& sequence, Lane& lane, WorkerJob& job);
  /// The worker has forgotten a sequence that left: it waits again.
  void Left(Sequence& sequence, const AttentionAccount& account);
  void Requeue(Sequence& sequence);
  /// Of all stays; `last` is the last one's.
  static AttentionAccount AccountOf(const Sequence& sequence, AttentionAccount last);
  /// Takes one that runs out of the lists of its worker.
  void RemoveFromLane(Sequence& sequence);
  /// Pages of a session live on one worker: where its last request ran.
  void MovePin(const Sequence& sequence);
  std::optional<WorkerJob> JobFor(Lane& lane);
  void ReleaseEnded(Lane& lane, WorkerJob& job);
  void Plan(Lane& lane, WorkerJob& job, SubmittedStep& step);
  SequenceView ViewOf(const Sequence& sequence) const;
  void NotePlanned(const StepPlan& plan, SubmittedStep& step);
  Sequence& Join(SequenceId id, SubmittedStep& step);

  void TakeToken(const SampledToken& token);
  /// The first of a stay.
  void NoteFirstToken(Sequence& sequence, absl::Duration now);
  void ReportProgress(const SubmittedStep& step);
  /// Corrects the cost model by what the step really did; returns what CostModel::Observe said, or
  /// a negative number if the step is no measure of anything.
  double ObserveCost(const SubmittedStep& step, const StepDone& event);
  /// The features of the slice's visual were there: the rest of it costs nothing.
  void NoteReused(Sequence& sequence, const VisionSlice& slice) const;
  /// `error` is what ObserveCost said.
  void CountStep(const SubmittedStep& step, const StepDone& event, double error) const;
  void CountGpu(const StepDone& event) const;
  void CountRejected(const absl::Status& status) const;
  void CheckStepComplete(const SubmittedStep& step, const StepDone& event);
  /// Ends a request; idempotent. The sequence may be destroyed.
  void End(Sequence& sequence, absl::Status status, FinishReason reason);
  void SendFinish(Sequence& sequence, AttentionAccount account);
  GenerateResult FinalResult(Sequence& sequence, absl::Duration now) const;
  /// Gives back what the sequence reserved.
  void Unadmit(Sequence& sequence);
  /// If no worker will serve again, ends everything.
  void EndIfAllLost(const absl::Status& cause);
  void Forget(Sequence& sequence);

  const EngineOptions options_;
  const ExecutorInfo info_;
  const Clock& clock_;
  EngineObserver* const observer_;
  const EngineMetrics metrics_;
  const int max_running_a_lane_;
  std::vector<Lane> lanes_;
  CostModel cost_;
  WaitingQueue waiting_;
  absl::flat_hash_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  absl::btree_set<std::pair<absl::Duration, uint64_t>> deadlines_;
  std::vector<uint8_t> attention_;  // by lane: there may be something to do
  uint64_t next_step_ = 1;
  bool admission_changed_ = false;  // something happened that may let a waiting request in
  uint64_t next_preempt_step_ = 0;  // nobody need try to preempt before
  bool preempt_later_ = false;      // but somebody would
  int64_t preemptions_ = 0;
  int running_ = 0;  // in all lanes
  int running_by_priority_[3] = {0, 0, 0};
  int waiting_media_ = 0;
  double waiting_seconds_ = 0;
  double running_seconds_ = 0;
  absl::Status failure_;
};

}  // namespace videonsa
