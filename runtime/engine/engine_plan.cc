// The half of EngineCore that turns its state into jobs.
#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/engine/engine_core.h"

namespace videonsa {
namespace {

// Requests that may overtake a head of the queue that does not fit yet: how far to look, and how
// often in all before everybody waits for the head.
constexpr int kBackfillCandidates = 8;
constexpr int kMaxBypasses = 16;

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
  if (!failure_.ok() || jobs_in_flight_ >= options_.plan_depth) return std::nullopt;
  WorkerJob job;
  ReleaseEnded(job);
  Admit(job);
  SubmittedStep step;
  Plan(job, step);
  if (job.release.empty() && job.add.empty() && step.members.empty()) return std::nullopt;
  job.plan.step = next_step_++;
  step.plan = job.plan;
  submitted_.push_back(std::move(step));
  ++jobs_in_flight_;
  return job;
}

void EngineCore::ReleaseEnded(WorkerJob& job) {
  std::erase_if(ended_, [&](Sequence* sequence) {
    if (sequence->in_flight > 0) return false;
    job.release.push_back(sequence->id());
    // The worker does jobs in order: it forgets the sequence before a later plan uses its pages.
    Unadmit(*sequence);
    return true;
  });
}

void EngineCore::Admit(WorkerJob& job) {
  if (!std::exchange(admission_changed_, false)) return;
  const int64_t evictions = admission_.num_evicted();
  while (static_cast<int>(running_.size()) < options_.max_running && waiting_.size() > 0 &&
         AdmitOne(job)) {
  }
  metrics_.kv_evictions_lru.Add(static_cast<double>(admission_.num_evicted() - evictions));
}

bool EngineCore::AdmitOne(WorkerJob& job) {
  const std::vector<RequestId> candidates = waiting_.Front(kBackfillCandidates);
  Sequence& head = *Find(candidates.front());
  if (admission_.TryAdmit(head)) {
    Start(head, job);
    return true;
  }
  if (head.bypassed >= kMaxBypasses) return false;
  for (size_t i = 1; i < candidates.size(); ++i) {
    Sequence& sequence = *Find(candidates[i]);
    if (!admission_.TryAdmit(sequence)) continue;
    ++head.bypassed;
    Start(sequence, job);
    return true;
  }
  return false;
}

void EngineCore::Start(Sequence& sequence, WorkerJob& job) {
  const Request& request = sequence.request;
  SequenceSpec& prepared = sequence.prompt->spec;
  waiting_.Remove(request.id);
  waiting_.Charge(request.tenant, sequence.predicted_seconds);
  waiting_seconds_ -= sequence.predicted_seconds;
  running_seconds_ += sequence.predicted_seconds;
  sequence.SetPhase(SequencePhase::kPrefill);
  sequence.admit_time = clock_.Monotonic();
  sequence.pages_reserved = sequence.pages.size();
  sequence.next_token = sequence.cached_tokens;
  sequence.service = prefill_clock_;
  for (const VisionSpan& span : prepared.vision_spans) {
    if (span.token_begin + span.num_tokens <= sequence.cached_tokens) continue;
    const PatchGrid& grid = prepared.visuals[span.visual_idx]->grid;
    sequence.visuals_left.push_back({span.visual_idx, 0, grid.t, int64_t{grid.h} * grid.w});
  }
  running_.push_back(&sequence);
  metrics_.prefix_cache_query_tokens.Add(sequence.prompt_len());
  metrics_.prefix_cache_hit_tokens.Add(sequence.cached_tokens);
  SequenceSpec spec = prepared;
  spec.id = sequence.id();
  spec.page_ids = sequence.pages.pages();
  spec.cached_tokens = sequence.cached_tokens;
  spec.cancelled = request.cancelled;
  job.add.push_back(std::move(spec));
  if (observer_ != nullptr) observer_->OnAdmitted(request.id);
}

SequenceView EngineCore::ViewOf(const Sequence& sequence) const {
  SequenceView view;
  view.id = sequence.id();
  view.decode = sequence.phase() == SequencePhase::kDecode || sequence.planned_outputs > 0;
  view.kv_tokens = sequence.prompt_len() + sequence.planned_outputs;
  view.prompt_tokens = sequence.prompt_len();
  view.next_token = sequence.next_token;
  view.num_layers = info_.num_layers;
  view.next_layer = sequence.next_layer;
  view.layerwise = sequence.layerwise();
  view.forecast = &sequence.prompt->forecast;
  view.visuals = sequence.visuals_left;
  view.service = sequence.service;
  return view;
}

void EngineCore::Plan(WorkerJob& job, SubmittedStep& step) {
  std::vector<SequenceView> views;
  views.reserve(running_.size());
  for (const Sequence* sequence : running_) {
    // Everything it may say is already being sampled.
    if (sequence->planned_outputs >= sequence->prompt->spec.sampling.max_output_tokens) continue;
    views.push_back(ViewOf(*sequence));
  }
  if (views.empty()) return;
  StepBudget budget = options_.step;
  budget.can_split_vision = info_.can_split_vision;
  PlannedStep planned = PlanStep(views, budget, cost_);
  job.plan = std::move(planned.plan);
  step.work = planned.work;
  NotePlanned(job.plan, step);
  for (const auto& [id, seconds] : planned.charges) {
    Sequence& sequence = *Find(RequestId{id.value});
    sequence.service += seconds / PrefillWeight(sequence.request.priority);
  }
  double least = -1;
  for (const Sequence* sequence : running_) {
    if (sequence->phase() != SequencePhase::kPrefill) continue;
    if (least < 0 || sequence->service < least) least = sequence->service;
  }
  prefill_clock_ = std::max(prefill_clock_, least);
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
      sequence.planned_outputs = 1;
      step.due.push_back(&sequence);
    }
  }
  for (const SequenceId id : plan.decode) {
    Sequence& sequence = Join(id, step);
    ++sequence.planned_outputs;
    step.due.push_back(&sequence);
  }
}

}  // namespace videonsa
