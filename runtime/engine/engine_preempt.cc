// The part of EngineCore that lets sequences leave for requests of higher classes.
#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/engine/engine_core.h"
#include "runtime/engine/preemption.h"

namespace videonsa {
namespace {

void Add(const AttentionAccount& from, AttentionAccount& to) {
  to.layers.resize(std::max(to.layers.size(), from.layers.size()));
  for (size_t i = 0; i < from.layers.size(); ++i) to.layers[i] += from.layers[i];
  to.dense_pairs += from.dense_pairs;
  // Shares and means of the same rows: the last stay that computed them says it all.
  if (!from.gates.empty()) to.gates = from.gates;
  if (!from.block_share.empty()) to.block_share = from.block_share;
}

}  // namespace

bool EngineCore::MayPreempt() const {
  if (options_.max_preemptions == 0) return false;
  int lowest = 0, highest = 2;
  while (lowest < 3 && running_by_priority_[lowest] == 0) ++lowest;
  while (highest >= 0 && waiting_.size(static_cast<Priority>(highest)) == 0) --highest;
  return lowest < highest;
}

Shortage EngineCore::ShortageOn(const Lane& lane, const Sequence& sequence) const {
  const AdmissionPolicy& admission = *lane.admission;
  const KvNeed need = NeedOf(*sequence.prompt, info_);
  const int known = admission.index().Match(sequence.prompt->page_keys,
                                            (sequence.prompt_len() - 1) / kPageTokens);
  // Known pages that only the index holds are not there for the rest.
  const int cached = admission.index().num_cached();
  const int free = admission.pool().num_free() + cached - std::min(known, cached);
  Shortage shortage;
  shortage.pages = need.pages - known - free;
  if (need.hidden_bytes > 0) {
    shortage.hidden_bytes =
        need.hidden_bytes - (admission.hidden().limit() - admission.hidden().used());
  }
  shortage.slots = std::max(static_cast<int>(lane.running.size()) + 1 - max_running_a_lane_,
                            running_ + 1 - options_.max_running);
  return shortage;
}

double EngineCore::SecondsLost(const Sequence& sequence) const {
  if (sequence.phase() == SequencePhase::kPrefill) {
    return std::max(0.0, sequence.prefill_seconds - sequence.prefill_left);
  }
  return sequence.prefill_seconds + ReplaySeconds(sequence);
}

double EngineCore::ReplaySeconds(const Sequence& sequence) const {
  const double rows = std::max(0, static_cast<int>(sequence.output_ids.size()) - 1);
  return cost_.DecodeSeconds(rows, rows * sequence.prompt_len());
}

std::vector<SequenceId> EngineCore::VictimsOn(const Lane& lane, const Sequence& sequence,
                                              double* lost) const {
  const Shortage shortage = ShortageOn(lane, sequence);
  if (!shortage.any()) return {};
  std::vector<VictimView> views;
  for (const Sequence* running : lane.running) {
    if (running->request.priority >= sequence.request.priority ||
        !running->MayBePreempted(options_.max_preemptions)) {
      continue;
    }
    views.push_back({running->id(), running->request.priority, SecondsLost(*running),
                     running->need.hidden_bytes, running->pages.pages()});
  }
  const PagePool& pool = lane.admission->pool();
  const std::vector<SequenceId> victims = ChooseVictims(
      views, shortage, sequence.request.priority, pool.capacity(),
      [&pool](int32_t page) { return pool.refs(page) - (pool.indexed(page) ? 1 : 0); });
  *lost = 0;
  for (const VictimView& view : views) {
    const bool leaves = std::find(victims.begin(), victims.end(), view.id) != victims.end();
    if (leaves) *lost += view.lost_seconds;
  }
  return victims;
}

void EngineCore::TryPreempt(Sequence& sequence) {
  if (!MayPreempt() || sequence.victims_lane >= 0) return;
  if (next_step_ < next_preempt_step_) {
    preempt_later_ = true;
    return;
  }
  Lane* best = nullptr;
  std::vector<SequenceId> victims;
  double least = 0;
  for (Lane& lane : lanes_) {
    if (lane.state != Lane::State::kServing || lane.beneficiary != nullptr) continue;
    double lost = 0;
    std::vector<SequenceId> leaving = VictimsOn(lane, sequence, &lost);
    if (leaving.empty() || (best != nullptr && lost >= least)) continue;
    best = &lane;
    least = lost;
    victims = std::move(leaving);
  }
  if (best == nullptr) {
    // Somebody may have sampled a token by then, but not in every step anew.
    next_preempt_step_ = next_step_ + lanes_.size();
    preempt_later_ = true;
    return;
  }
  best->beneficiary = &sequence;
  sequence.victims_lane = best->index;
  const Shortage shortage = ShortageOn(*best, sequence);
  best->short_of_memory = shortage.pages > 0 || shortage.hidden_bytes > 0;
  for (const SequenceId id : victims) {
    Sequence* victim = Find(RequestId{id.value});
    victim->leaving = true;
    best->victims.push_back(victim);
  }
  attention_[best->index] = 1;
}

void EngineCore::StopLeaving(Sequence& beneficiary) {
  if (beneficiary.victims_lane < 0) return;
  Lane& lane = lanes_[beneficiary.victims_lane];
  VNSA_CHECK(lane.beneficiary == &beneficiary) << "I16: request " << beneficiary.request.id;
  for (Sequence* victim : lane.victims) victim->leaving = false;
  lane.victims.clear();
  lane.beneficiary = nullptr;
  beneficiary.victims_lane = -1;
  attention_[lane.index] = 1;
}

void EngineCore::AdmitBeneficiaries() {
  for (Lane& lane : lanes_) {
    if (lane.beneficiary == nullptr || !lane.victims.empty()) continue;
    Sequence& sequence = *lane.beneficiary;
    StopLeaving(sequence);
    const bool slot = running_ < options_.max_running &&
                      static_cast<int>(lane.running.size()) < max_running_a_lane_;
    if (slot && lane.state == Lane::State::kServing) TryBind(sequence, lane);
  }
}

void EngineCore::ReleaseVictims(Lane& lane, WorkerJob& job) {
  const std::vector<Sequence*> victims = lane.victims;
  for (Sequence* sequence : victims) {
    if (sequence->in_flight == 0) Leave(*sequence, lane, job);
  }
}

void EngineCore::Leave(Sequence& sequence, Lane& lane, WorkerJob& job) {
  VNSA_CHECK(sequence.request.priority < lane.beneficiary->request.priority &&
             sequence.preemptions < options_.max_preemptions &&
             (sequence.preemptions == 0 || sequence.output_tokens > sequence.tokens_at_leaving))
      << "I15: request " << sequence.request.id << " leaves with " << sequence.output_tokens
      << " tokens after " << sequence.preemptions << " preemptions";
  const auto same = [&](const SequenceSpec& spec) { return spec.id == sequence.id(); };
  const bool known = std::erase_if(lane.to_add, same) == 0;
  RemoveFromLane(sequence);
  sequence.SetPhase(SequencePhase::kWaiting);
  // The worker does jobs in order: it forgets the sequence before a later plan uses its pages.
  Unadmit(sequence);
  ++preemptions_;
  ++sequence.preemptions;
  const size_t priority = static_cast<size_t>(sequence.request.priority);
  (lane.short_of_memory ? metrics_.preemptions_memory : metrics_.preemptions_slots)[priority].Add();
  sequence.tokens_at_leaving = sequence.output_tokens;
  sequence.leave_time = clock_.Monotonic();
  sequence.EndStay();
  if (observer_ != nullptr) observer_->OnPreempted(sequence.request.id);
  if (!known) return Requeue(sequence);
  sequence.release_lane = lane.index;
  job.release.push_back(sequence.id());
}

void EngineCore::Left(Sequence& sequence, const AttentionAccount& account) {
  sequence.release_lane = -1;
  Add(account, sequence.account);
  if (sequence.phase() != SequencePhase::kFinished) return Requeue(sequence);
  if (!sequence.finish_sent) SendFinish(sequence, {});
  Forget(sequence);
}

void EngineCore::Requeue(Sequence& sequence) {
  waiting_.Push(sequence.request.id, sequence.request.tenant, sequence.request.priority,
                sequence.rank);
  waiting_seconds_ += sequence.predicted_seconds;
  admission_changed_ = true;
}

AttentionAccount EngineCore::AccountOf(const Sequence& sequence, AttentionAccount last) {
  if (sequence.preemptions == 0) return last;
  AttentionAccount account = sequence.account;
  Add(last, account);
  return account;
}

}  // namespace videonsa
