#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "runtime/base/hash.h"
#include "runtime/engine/admission.h"
#include "runtime/engine/cost_model.h"
#include "runtime/engine/sequence.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// A step that a worker was given and has not finished.
struct SubmittedStep {
  StepPlan plan;
  StepWork work;
  std::vector<double> vision_patches;  ///< planned, by vision slice
  std::vector<Sequence*> members;      ///< one entry a slice, counted in in_flight (I7)
  std::vector<Sequence*> due;          ///< whose slice samples a token
};

/// The engine's side of one worker: its memory, what runs there, what it was given to do.
///
/// Owner: engine thread only.
struct Lane {
  enum class State {
    kServing,
    kRestarting,  ///< failed; its device is being opened again
    kLost,        ///< failed for good
  };

  Lane(int idx, const ExecutorInfo& info, int64_t hidden_bytes, const SessionPins::Limits& pins);

  /// Predicted seconds of prefills here that go before a request of `rank` and are not planned yet.
  double SecondsAhead(double rank) const;
  /// Predicted seconds that the pages and features which the worker holds would save a request.
  double SecondsSaved(const Sequence& sequence) const;
  /// False if TryAdmit cannot succeed now; cheap.
  bool MayAdmit(const KvNeed& need) const;
  /// Remembers that the visuals of a sequence were encoded here.
  void NoteVisuals(const SequenceSpec& spec);
  /// Starts over with empty memory after a failure. Requires: nothing runs here.
  void Reset(const ExecutorInfo& info, int64_t hidden_bytes);

  const int index;
  State state = State::kServing;
  /// Failures so far; a job carries it, so that one meant for the failed device is not run.
  int epoch = 0;
  std::unique_ptr<AdmissionPolicy> admission;
  std::vector<Sequence*> running;     ///< kPrefill and kDecode, in order of admission
  std::vector<Sequence*> prefilling;  ///< those of `running` without a token
  std::vector<Sequence*> ended;       ///< kFinished, still known to the executor
  std::vector<Sequence*> victims;     ///< those of `running` that leave at their next border
  Sequence* beneficiary = nullptr;    ///< for whom; nobody else is admitted here until then
  bool short_of_memory = false;       ///< why: pages or bytes, else running sequences
  std::vector<SequenceSpec> to_add;
  std::deque<SubmittedStep> submitted;
  int jobs_in_flight = 0;
  double prefill_clock = 0;  ///< least service among prefills, never decreasing
  uint64_t steps = 0;
  bool full = false;  ///< the last step had no room for more prefill work

 private:
  // Visuals encoded lately, by content, with the count of the last use.
  absl::flat_hash_map<Sha256Digest, uint64_t> visuals_;
  uint64_t num_visuals_noted_ = 0;
};

}  // namespace videonsa
