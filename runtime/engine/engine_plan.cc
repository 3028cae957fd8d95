// The half of EngineCore that turns its state into jobs.
#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/engine/engine_core.h"

namespace videonsa {
namespace {

// How far to look for requests that may overtake a head of the queue that does not fit yet.
constexpr int kBackfillCandidates = 8;

double PrefillWeight(Priority priority) {
  switch (priority) {
    case Priority::kInteractive:
      return 4;
    case Priority::kStandard:
      return 2;
    case Priority::kBatch:
      return 1;
  }
  return 1;
}

}  // namespace

std::optional<WorkerJob> EngineCore::NextJob() {
  if (!failure_.ok()) return std::nullopt;
  Admit();
  for (Lane& lane : lanes_) {
    if (!std::exchange(attention_[lane.index], 0)) continue;
    if (std::optional<WorkerJob> job = JobFor(lane)) {
      attention_[lane.index] = 1;  // it may take another
      return job;
    }
  }
  return std::nullopt;
}

std::optional<WorkerJob> EngineCore::JobFor(Lane& lane) {
  if (lane.state != Lane::State::kServing || lane.jobs_in_flight >= options_.plan_depth) {
    return std::nullopt;
  }
  WorkerJob job;
  job.worker = lane.index;
  job.epoch = lane.epoch;
  ReleaseEnded(lane, job);
  ReleaseVictims(lane, job);
  if (admission_changed_) Admit();  // the pages may serve another at once
  job.add = std::exchange(lane.to_add, {});
  SubmittedStep step;
  Plan(lane, job, step);
  if (job.release.empty() && job.add.empty() && step.members.empty()) return std::nullopt;
  job.plan.step = next_step_++;
  step.plan = job.plan;
  lane.submitted.push_back(std::move(step));
  ++lane.jobs_in_flight;
  return job;
}

void EngineCore::ReleaseEnded(Lane& lane, WorkerJob& job) {
  std::vector<Sequence*> unknown;  // ended before the worker was told of them
  std::erase_if(lane.ended, [&](Sequence* sequence) {
    if (sequence->in_flight > 0) return false;
    // A stay that has sampled nothing may not have all rows of the answer that it came with.
    const bool complete = sequence->output_tokens > sequence->kept_tokens;
    if (sequence->end_status.ok() && complete) lane.admission->PublishAnswer(*sequence);
    // The worker does jobs in order: it forgets the sequence before a later plan uses its pages.
    Unadmit(*sequence);
    const auto same = [&](const SequenceSpec& spec) { return spec.id == sequence->id(); };
    if (std::erase_if(lane.to_add, same) > 0) {
      unknown.push_back(sequence);
    } else {
      job.release.push_back(sequence->id());
    }
    return true;
  });
  for (Sequence* sequence : unknown) {
    if (!sequence->finish_sent) SendFinish(*sequence, {});
    Forget(*sequence);
  }
}

void EngineCore::Admit() {
  const bool try_again = preempt_later_ && next_step_ >= next_preempt_step_;
  if (try_again) preempt_later_ = false;
  if (!std::exchange(admission_changed_, false) && !try_again) return;
  AdmitBeneficiaries();
  while (waiting_.size() > 0 && (running_ < options_.max_running || MayPreempt()) && AdmitOne()) {
  }
}

bool EngineCore::AdmitOne() {
  Sequence& head = *Find(waiting_.Front(1).front());
  const Start head_start = TryStart(head);
  if (head_start == Start::kStarted) return true;
  if (head_start == Start::kNoRoom) TryPreempt(head);
  // Whoever ranks behind it would wait for at least the same work.
  if (head_start == Start::kBusy || head.bypassed >= options_.max_bypasses) return false;
  for (const RequestId id : waiting_.Front(kBackfillCandidates)) {
    if (id == head.request.id) continue;
    Sequence& other = *Find(id);
    const Start start = TryStart(other);
    if (start == Start::kStarted) {
      ++head.bypassed;
      return true;
    }
    if (start == Start::kNoRoom && other.request.priority > head.request.priority) {
      TryPreempt(other);
    }
  }
  return false;
}

EngineCore::Start EngineCore::TryStart(Sequence& sequence) {
  if (running_ >= options_.max_running) return Start::kNoRoom;
  const KvNeed need = NeedOf(*sequence.prompt, info_);
  const double most_ahead = options_.bind_within_steps * options_.step.seconds;
  std::vector<std::pair<double, Lane*>> lanes;  // score, ties to the first
  bool busy = false;
  for (Lane& lane : lanes_) {
    const bool open = lane.state == Lane::State::kServing &&
                      (lane.beneficiary == nullptr || lane.beneficiary == &sequence) &&
                      static_cast<int>(lane.running.size()) < max_running_a_lane_;
    if (!open || !lane.MayAdmit(need)) continue;
    const double ahead = lane.SecondsAhead(sequence.rank);
    if (ahead >= most_ahead && lane.full) {
      busy = true;
    } else {
      lanes.emplace_back(ahead - lane.SecondsSaved(sequence), &lane);
    }
  }
  while (!lanes.empty()) {
    const auto best = std::min_element(lanes.begin(), lanes.end());
    Lane& lane = *best->second;
    if (TryBind(sequence, lane)) return Start::kStarted;
    lanes.erase(best);
  }
  return busy ? Start::kBusy : Start::kNoRoom;
}

bool EngineCore::TryBind(Sequence& sequence, Lane& lane) {
  const int64_t evictions = lane.admission->num_evicted();
  const int64_t unpinned = lane.admission->pins().num_taken();
  const bool admitted = lane.admission->TryAdmit(sequence);
  metrics_.kv_evictions_lru.Add(static_cast<double>(lane.admission->num_evicted() - evictions));
  metrics_.sessions_unpinned.Add(
      static_cast<double>(lane.admission->pins().num_taken() - unpinned));
  if (admitted) Bind(sequence, lane);
  return admitted;
}

void EngineCore::Bind(Sequence& sequence, Lane& lane) {
  const Request& request = sequence.request;
  SequenceSpec& prepared = sequence.prompt->spec;
  StopLeaving(sequence);
  waiting_.Remove(request.id);
  const bool first_stay = sequence.preemptions == 0;
  if (first_stay) {
    waiting_.Charge(request.tenant, sequence.predicted_seconds);
    sequence.admit_time = clock_.Monotonic();
    sequence.reused_tokens = sequence.cached_tokens;
    metrics_.prefix_cache_query_tokens.Add(sequence.prompt_len());
    metrics_.prefix_cache_hit_tokens.Add(sequence.cached_tokens);
  }
  waiting_seconds_ -= sequence.predicted_seconds;
  running_seconds_ += sequence.predicted_seconds;
  sequence.SetPhase(SequencePhase::kPrefill);
  sequence.kept_tokens = sequence.planned_outputs = sequence.output_tokens;
  sequence.pages_reserved = sequence.pages.size();
  sequence.next_token = sequence.cached_tokens;
  sequence.service = lane.prefill_clock;
  sequence.lane = lane.index;
  const double uncached = 1.0 - static_cast<double>(sequence.cached_tokens) / sequence.prompt_len();
  sequence.prefill_left = sequence.prefill_seconds * uncached + ReplaySeconds(sequence);
  lane.prefilling.push_back(&sequence);
  lane.NoteVisuals(prepared);
  lane.full = true;  // until the next step says otherwise
  for (const VisionSpan& span : prepared.vision_spans) {
    if (span.token_begin + span.num_tokens <= sequence.cached_tokens) continue;
    const PatchSource& source = *prepared.visuals[span.visual_idx];
    const PatchGrid& grid = source.grid();
    sequence.visuals_left.push_back(
        {span.visual_idx, 0, grid.t, source.state().t_ready, int64_t{grid.h} * grid.w});
  }
  lane.running.push_back(&sequence);
  ++running_;
  ++running_by_priority_[static_cast<int>(request.priority)];
  attention_[lane.index] = 1;
  SequenceSpec spec = prepared;
  spec.id = sequence.id();
  spec.page_ids = sequence.pages.pages();
  spec.cached_tokens = sequence.cached_tokens;
  spec.answer_ids = sequence.output_ids;
  spec.cancelled = request.cancelled;
  lane.to_add.push_back(std::move(spec));
  if (observer_ != nullptr) observer_->OnAdmitted(request.id);
}

void EngineCore::MovePin(const Sequence& sequence) {
  if (sequence.request.pin == nullptr) return;
  for (Lane& lane : lanes_) {
    if (lane.index != sequence.lane) lane.admission->Unpin(sequence.request.pin->id);
  }
}

SequenceView EngineCore::ViewOf(const Sequence& sequence) const {
  SequenceView view;
  view.id = sequence.id();
  const bool replays = sequence.prompt_planned && sequence.ReplayLeft() > 0;
  view.decode = sequence.prompt_planned && !replays;
  view.kv_tokens =
      sequence.prompt_len() + (replays ? sequence.next_replay : sequence.planned_outputs);
  if (replays) {
    view.replay_begin = sequence.next_replay;
    view.replay_end = sequence.next_replay + sequence.ReplayLeft();
  }
  view.prompt_tokens = sequence.prompt_len();
  view.next_token = sequence.next_token;
  view.num_layers = info_.num_layers;
  view.next_layer = sequence.next_layer;
  view.layerwise = sequence.layerwise();
  view.forecast = &sequence.prompt->forecast;
  view.visuals = sequence.visuals_left;
  view.rank = sequence.rank;
  view.service = sequence.service;
  return view;
}

void EngineCore::Plan(Lane& lane, WorkerJob& job, SubmittedStep& step) {
  std::vector<SequenceView> views;
  views.reserve(lane.running.size());
  for (const Sequence* sequence : lane.running) {
    if (sequence->leaving) continue;
    // Everything it may say is already being sampled.
    if (sequence->planned_outputs >= sequence->prompt->spec.sampling.max_output_tokens) continue;
    views.push_back(ViewOf(*sequence));
  }
  if (views.empty()) return;
  StepBudget budget = options_.step;
  // The quantum is kept although predictions are off: gaps are judged by their worst, not by their
  // mean, so the budget leaves out what all but a few steps overrun.
  budget.seconds /= std::max(1 + std::min(cost_.relative_error(), 1.0), cost_.overrun());
  budget.by_service = options_.fair_every > 0 && ++lane.steps % options_.fair_every == 0;
  PlannedStep planned = PlanStep(views, budget, cost_);
  job.plan = std::move(planned.plan);
  step.work = planned.work;
  NotePlanned(job.plan, step);
  for (const auto& [id, seconds] : planned.charges) {
    Sequence& sequence = *Find(RequestId{id.value});
    sequence.service += seconds / PrefillWeight(sequence.request.priority);
    sequence.prefill_left = std::max(sequence.prefill_left - seconds, 0.0);
  }
  double least = -1;
  // Less is ahead of those that wait, or there is room for more.
  if (!planned.charges.empty() || lane.full != planned.full) admission_changed_ = true;
  lane.full = planned.full;
  for (const Sequence* sequence : lane.prefilling) {
    if (sequence->WaitsForPatches()) continue;
    if (least < 0 || sequence->service < least) least = sequence->service;
  }
  lane.prefill_clock = std::max(lane.prefill_clock, least);
}

Sequence& EngineCore::Join(SequenceId id, SubmittedStep& step) {
  Sequence& sequence = *Find(RequestId{id.value});
  step.members.push_back(&sequence);
  ++sequence.in_flight;
  return sequence;
}

void EngineCore::NotePlanned(const StepPlan& plan, SubmittedStep& step) {
  for (const VisionSlice& slice : plan.vision) {
    Sequence& sequence = Join(slice.sequence, step);
    SequenceView::VisualView& visual = sequence.visuals_left.front();
    VNSA_CHECK(visual.visual_idx == slice.visual_idx && visual.t_begin == slice.t_begin);
    step.vision_patches.push_back(static_cast<double>(visual.patches_per_t) *
                                  (slice.t_end - slice.t_begin));
    visual.t_begin = slice.t_end;
    if (visual.t_begin == visual.t_end) sequence.visuals_left.erase(sequence.visuals_left.begin());
  }
  for (const PrefillSlice& slice : plan.prefill) {
    Sequence& sequence = Join(slice.sequence, step);
    if (sequence.layerwise()) {
      sequence.next_layer = slice.layer_end;
    } else {
      sequence.next_token = slice.token_end;
    }
    if (slice.token_end == sequence.prompt_len() && slice.layer_end == info_.num_layers) {
      sequence.prompt_planned = true;
      if (sequence.kept_tokens > 0) continue;
      sequence.planned_outputs = 1;
      step.due.push_back(&sequence);
    }
  }
  for (const ReplaySlice& slice : plan.replay) {
    Join(slice.sequence, step).next_replay = slice.end;
  }
  for (const SequenceId id : plan.decode) {
    Sequence& sequence = Join(id, step);
    ++sequence.planned_outputs;
    step.due.push_back(&sequence);
  }
}

}  // namespace videonsa
