// The half of EngineCore that accounts: final reports and invariants.
#include <algorithm>
#include <optional>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/engine/engine_core.h"

namespace videonsa {

GenerateResult EngineCore::FinalResult(Sequence& sequence, absl::Duration now) const {
  GenerateResult result;
  if (sequence.prompt != nullptr) {
    sequence.TakeMediaCosts();
    result = std::move(sequence.prompt->result);
  }
  result.finish_reason = sequence.finish_reason;
  Timing& timing = result.timing;
  const absl::Duration never = -absl::InfiniteDuration();
  timing.total = now - sequence.request.receive;
  if (sequence.ready_time != never) {
    const absl::Duration admit = sequence.admit_time != never ? sequence.admit_time : now;
    timing.queue += admit - sequence.ready_time;
  }
  absl::Duration prefill_begin = sequence.admit_time;
  if (sequence.vision_end_time != never) {
    timing.vision = sequence.vision_end_time - sequence.admit_time;
    prefill_begin = sequence.vision_end_time;
  }
  if (sequence.first_token_time != never) {
    timing.prefill = sequence.first_token_time - prefill_begin;
    timing.time_to_first_token = sequence.first_token_time - sequence.request.receive;
    timing.generate = sequence.last_token_time - sequence.first_token_time;
    if (sequence.output_tokens > 1) {
      timing.mean_inter_token = timing.generate / (sequence.output_tokens - 1);
    }
  }
  timing.preemptions = sequence.preemptions;
  timing.preempted = sequence.preempted_time;
  if (sequence.leave_time != never) timing.preempted += now - sequence.leave_time;
  result.usage.output_tokens = sequence.output_tokens;
  result.usage.cached_prompt_tokens = sequence.reused_tokens;
  result.usage.kv_pages_peak = sequence.pages_reserved;
  result.answer_ids = std::move(sequence.output_ids);
  if (sequence.ended_by_stop_token) result.answer_ids.pop_back();
  if (sequence.reused_tokens > 0) {
    result.kv_reuse = KvReuse::kExact;
  } else if (sequence.reused_visuals > 0) {
    result.kv_reuse = KvReuse::kFeatures;
  }
  return result;
}

double EngineCore::ObserveCost(const SubmittedStep& step, const StepDone& event) {
  // How long a step took says nothing of slices that were left out of it, and all of them were
  // planned as one sum.
  if (!event.result.skipped.empty() || !event.rejected.empty()) return -1;
  StepWork work = step.work;
  for (const VisionSlice& reused : event.result.reused_vision) {
    for (size_t i = 0; i < step.plan.vision.size(); ++i) {
      const VisionSlice& slice = step.plan.vision[i];
      const bool same = slice.sequence == reused.sequence &&
                        slice.visual_idx == reused.visual_idx && slice.t_begin == reused.t_begin;
      if (!same) continue;
      work.vision_patches -= step.vision_patches[i];
      work.vision_slices -= 1;
    }
  }
  if (work.vision_patches + work.prefill_tokens + work.decode_rows <= 0) return -1;
  return cost_.Observe(work, event.result);
}

void EngineCore::NoteReused(Sequence& sequence, const VisionSlice& slice) const {
  if (sequence.preemptions == 0) ++sequence.reused_visuals;
  for (SequenceView::VisualView& visual : sequence.visuals_left) {
    if (visual.visual_idx != slice.visual_idx) continue;
    const double left = static_cast<double>(visual.patches_per_t) * (visual.t_end - visual.t_begin);
    sequence.prefill_left = std::max(0.0, sequence.prefill_left - cost_.VisionSeconds(left));
    visual.patches_per_t = 0;
  }
}

void EngineCore::CountStep(const SubmittedStep& step, const StepDone& event, double error) const {
  const StepResult& result = event.result;
  const StepPlan& plan = step.plan;
  if (step.members.empty()) return;
  const bool prefills = !plan.prefill.empty() || !plan.vision.empty() || !plan.replay.empty();
  const StepPhase phase = plan.decode.empty() ? StepPhase::kPrefill
                          : prefills          ? StepPhase::kMixed
                                              : StepPhase::kDecode;
  const size_t i = static_cast<size_t>(phase);
  metrics_.step_seconds[i].Observe(
      absl::ToDoubleSeconds(result.vision_time + result.prefill_time + result.decode_time));
  metrics_.step_sequences[i].Observe(static_cast<double>(step.members.size()));
  metrics_.step_tokens[i].Observe(step.work.prefill_tokens + step.work.decode_rows);
  if (error >= 0) metrics_.step_error[i].Observe(error);
  metrics_.feature_cache_queries.Add(static_cast<double>(plan.vision.size()));
  metrics_.feature_cache_hits.Add(static_cast<double>(result.reused_vision.size()));
  if (info_.gpu >= 0) CountGpu(event);
}

void EngineCore::CountGpu(const StepDone& event) const {
  const StepResult& result = event.result;
  metrics_.gpu_vision_seconds.Add(absl::ToDoubleSeconds(result.vision_time));
  metrics_.gpu_prefill_seconds.Add(absl::ToDoubleSeconds(result.prefill_time));
  metrics_.gpu_decode_seconds.Add(absl::ToDoubleSeconds(result.decode_time));
  metrics_.decode_replays.Add(result.device.decode_replays);
  metrics_.decode_launches.Add(result.device.decode_launches);
  if (static_cast<size_t>(event.worker) >= metrics_.gpu_memory.size()) return;
  const GpuMemoryMetrics& memory = metrics_.gpu_memory[static_cast<size_t>(event.worker)];
  memory.weights.Set(static_cast<double>(result.device.weight_bytes));
  memory.kv.Set(static_cast<double>(result.device.kv_bytes));
  memory.other.Set(static_cast<double>(result.device.other_bytes));
}

void EngineCore::CountRejected(const absl::Status& status) const {
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  if (info_.gpu >= 0 && info && info->reason == "OUT_OF_MEMORY") metrics_.gpu_out_of_memory.Add();
}

void EngineCore::UpdateGauges() const {
  metrics_.requests_running.Set(running_);
  for (const Priority priority : {Priority::kBatch, Priority::kStandard, Priority::kInteractive}) {
    metrics_.requests_waiting[static_cast<size_t>(priority)].Set(waiting_.size(priority));
  }
  int free = 0, active = 0, cached = 0, pinned = 0, capacity = 0, sessions = 0;
  for (const Lane& lane : lanes_) {
    const PagePool& pool = lane.admission->pool();
    const int only_indexed = lane.admission->index().num_cached();
    free += pool.num_free();
    cached += only_indexed;
    pinned += lane.admission->pins().num_pages();
    sessions += lane.admission->pins().num_sessions();
    active += pool.num_used() - only_indexed - lane.admission->pins().num_pages();
    capacity += pool.capacity();
  }
  metrics_.kv_pages_free.Set(free);
  metrics_.kv_pages_active.Set(active);
  metrics_.kv_pages_cached.Set(cached);
  metrics_.kv_pages_pinned.Set(pinned);
  metrics_.sessions.Set(sessions);
  metrics_.kv_pages_capacity.Set(capacity);
  metrics_.kv_page_tokens.Set(kPageTokens);
  metrics_.kv_usage_ratio.Set(capacity == 0 ? 0.0
                                            : static_cast<double>(active + pinned) / capacity);
}

void EngineCore::CheckInvariants() const {
  int waiting = 0, waiting_media = 0, running = 0;
  for (const auto& [id, sequence] : sequences_) {
    waiting_media += sequence->phase() == SequencePhase::kWaitingMedia;
    waiting += sequence->phase() == SequencePhase::kWaiting && sequence->release_lane < 0;
    const bool runs =
        sequence->phase() == SequencePhase::kPrefill || sequence->phase() == SequencePhase::kDecode;
    running += runs;
    VNSA_CHECK_EQ(sequence->pages.size(), sequence->need.pages) << "I8: request " << id;
    VNSA_CHECK(sequence->lane >= 0 || sequence->need.pages == 0) << "I8: request " << id;
    VNSA_CHECK_EQ(runs, sequence->lane >= 0 && sequence->phase() != SequencePhase::kFinished);
  }
  VNSA_CHECK_EQ(waiting_media, waiting_media_);
  VNSA_CHECK_EQ(waiting, waiting_.size());
  VNSA_CHECK_EQ(running, running_);
  VNSA_CHECK_LE(running, options_.max_running);
  VNSA_CHECK_EQ(running,
                running_by_priority_[0] + running_by_priority_[1] + running_by_priority_[2]);
  for (const Lane& lane : lanes_) CheckLane(lane);
}

void EngineCore::CheckLane(const Lane& lane) const {
  const AdmissionPolicy& admission = *lane.admission;
  int held = 0, running = 0;
  int64_t hidden = 0;
  std::vector<int> references(admission.pool().capacity(), 0);
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->lane != lane.index) continue;
    running += sequence->phase() != SequencePhase::kFinished;
    held += sequence->need.pages;
    hidden += sequence->need.hidden_bytes;
    for (const int32_t page : sequence->pages.pages()) ++references[page];
  }
  VNSA_CHECK_EQ(running, static_cast<int>(lane.running.size()));
  VNSA_CHECK_LE(running, max_running_a_lane_);
  VNSA_CHECK(lane.state == Lane::State::kServing || running == 0) << "worker " << lane.index;
  VNSA_CHECK_EQ(hidden, admission.hidden().used()) << "I3";
  VNSA_CHECK_LE(static_cast<int>(lane.submitted.size()), options_.plan_depth) << "I9";
  VNSA_CHECK(lane.victims.empty() || lane.beneficiary != nullptr) << "I16: worker " << lane.index;
  for (const Sequence* victim : lane.victims) {
    VNSA_CHECK(victim->leaving && victim->lane == lane.index &&
               victim->request.priority < lane.beneficiary->request.priority)
        << "I15: request " << victim->request.id;
  }
  if (lane.beneficiary != nullptr) {
    VNSA_CHECK(lane.beneficiary->phase() == SequencePhase::kWaiting &&
               lane.beneficiary->victims_lane == lane.index)
        << "I16: request " << lane.beneficiary->request.id;
  }
  int64_t references_in_pool = 0;
  int used = 0;
  for (int32_t page = 0; page < admission.pool().capacity(); ++page) {
    const int refs = admission.pool().refs(page);
    VNSA_CHECK_LE(references[page], refs) << "I1: page " << page;
    references_in_pool += refs;
    used += refs > 0;
  }
  VNSA_CHECK_EQ(used, admission.pool().num_used()) << "I1";
  const SessionPins& pins = admission.pins();
  VNSA_CHECK_EQ(references_in_pool,
                int64_t{held} + admission.index().size() + pins.num_references())
      << "I1";
  VNSA_CHECK_LE(pins.num_pages(), pins.limits().pages) << "I14";
}

}  // namespace videonsa
