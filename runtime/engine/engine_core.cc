#include "runtime/engine/engine_core.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

// A deadline is refused at the door if even this share of the prediction does not fit before it.
constexpr double kDeadlineMargin = 0.5;

absl::Status DeviceLost(const absl::Status& cause) {
  return MakeError(absl::StatusCode::kUnavailable,
                   ErrorInfo{.reason = "DEVICE_LOST", .retry_after = absl::Seconds(5)},
                   absl::StrCat("the worker lost its device: ", cause.message()));
}

}  // namespace

EngineCore::EngineCore(const EngineOptions& options, const ExecutorInfo& info, const Clock& clock,
                       EngineObserver* observer, EngineMetrics metrics)
    : options_(options),
      info_(info),
      clock_(clock),
      observer_(observer),
      metrics_(std::move(metrics)),
      max_running_a_lane_((options.max_running + options.num_workers - 1) / options.num_workers),
      cost_(info),
      waiting_(options.order),
      attention_(options.num_workers, 1) {
  VNSA_CHECK_GE(options.num_workers, 1);
  cost_.Fit(options.cost_samples);
  const auto share = [&info](double of) { return static_cast<int>(of * info.num_pages); };
  const SessionPins::Limits pins{share(options.pinned_share), share(options.tenant_pinned_share)};
  for (int i = 0; i < options.num_workers; ++i) {
    lanes_.emplace_back(i, info, options.hidden_bytes, pins);
  }
}

void EngineCore::Handle(EngineMessage message) {
  ExpireDeadlines();
  std::visit([this](auto&& m) { On(std::move(m)); }, std::move(message));
}

Sequence* EngineCore::Find(RequestId id) {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

absl::Duration EngineCore::NextDeadline() const {
  return deadlines_.empty() ? absl::InfiniteDuration() : deadlines_.begin()->first;
}

void EngineCore::ExpireDeadlines() {
  if (deadlines_.empty()) return;
  const absl::Duration now = clock_.Monotonic();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Sequence& sequence = *Find(RequestId{deadlines_.begin()->second});
    if (sequence.output_tokens > 0) {
      End(sequence, absl::OkStatus(), FinishReason::kDeadline);
    } else {
      const std::string phase = PhaseName(sequence.phase());
      End(sequence,
          MakeError(absl::StatusCode::kDeadlineExceeded,
                    ErrorInfo{.reason = "DEADLINE_EXPIRED", .metadata = {{"phase", phase}}},
                    absl::StrCat("the deadline passed in phase ", phase)),
          FinishReason::kDeadline);
    }
  }
}

void EngineCore::On(SubmitMessage message) {
  const RequestId id = message.request.id;
  auto owned = std::make_unique<Sequence>(std::move(message.request));
  Sequence& sequence = *owned;
  VNSA_CHECK(sequences_.emplace(id, std::move(owned)).second) << "request " << id << " comes twice";
  ++waiting_media_;
  if (sequence.request.deadline < absl::InfiniteDuration()) {
    deadlines_.emplace(sequence.request.deadline, id.value);
  }
  sequence.request.stream->Accepted(id, message.ahead);
  if (!failure_.ok()) {
    End(sequence, DeviceLost(failure_), FinishReason::kStop);
  } else if (sequence.request.deadline <= clock_.Monotonic()) {
    ExpireDeadlines();
  }
}

void EngineCore::On(ReadyMessage message) {
  Sequence* sequence = Find(message.id);
  if (sequence == nullptr || sequence->phase() != SequencePhase::kWaitingMedia) return;
  --waiting_media_;
  sequence->SetPrompt(std::move(message.prompt));
  sequence->ready_time = clock_.Monotonic();
  PredictCost(*sequence);
  waiting_seconds_ += sequence->predicted_seconds;
  sequence->rank = options_.order.RankOf(sequence->request.priority, sequence->request.receive,
                                         sequence->prefill_seconds);
  waiting_.Push(message.id, sequence->request.tenant, sequence->request.priority, sequence->rank);
  admission_changed_ = true;
  absl::Status status = CheckFits(*sequence->prompt, info_, options_.hidden_bytes);
  if (status.ok()) status = CheckDeadline(*sequence);
  if (status.ok()) status = CheckPin(*sequence);
  if (!status.ok()) End(*sequence, std::move(status), FinishReason::kStop);
}

void EngineCore::PredictCost(Sequence& sequence) const {
  const PreparedPrompt& prompt = *sequence.prompt;
  double patches = 0;
  for (const auto& visual : prompt.spec.visuals) {
    if (visual != nullptr) patches += static_cast<double>(visual->grid().num_patches());
  }
  const double tokens = sequence.prompt_len();
  sequence.vision_seconds = cost_.VisionSeconds(patches);
  const double slices = NumPrefillSlices(prompt, options_.step.prefill_tokens);
  sequence.prefill_seconds =
      sequence.vision_seconds +
      cost_.PrefillSeconds(tokens, static_cast<double>(prompt.forecast.pairs.total()), slices);
  sequence.predicted_seconds = sequence.prefill_seconds + prompt.spec.sampling.max_output_tokens *
                                                              cost_.DecodeSeconds(1, tokens);
}

absl::Status EngineCore::CheckDeadline(const Sequence& sequence) const {
  const absl::Duration left = sequence.request.deadline - clock_.Monotonic();
  if (!cost_.calibrated() || left >= absl::Seconds(kDeadlineMargin * sequence.prefill_seconds)) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kDeadlineExceeded,
      ErrorInfo{.reason = "DEADLINE_TOO_SHORT",
                .metadata = {{"predicted_seconds", absl::StrCat(sequence.prefill_seconds)},
                             {"left_seconds", absl::StrCat(absl::ToDoubleSeconds(left))}}},
      absl::StrFormat("the first token is predicted to take %.3g s, the deadline is in %.3g s",
                      sequence.prefill_seconds, absl::ToDoubleSeconds(left)));
}

absl::Status EngineCore::CheckPin(const Sequence& sequence) {
  if (!sequence.request.must_pin) return absl::OkStatus();
  const PreparedPrompt& prompt = *sequence.prompt;
  int held = 0;
  for (Lane& lane : lanes_) {
    if (lane.admission->CanPin(prompt, sequence.request.tenant)) return absl::OkStatus();
    held += lane.admission->pins().num_pages();
  }
  const SessionPins::Limits& limits = lanes_.front().admission->pins().limits();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   ErrorInfo{.reason = "SESSION_PAGES",
                             .metadata = {{"pages", absl::StrCat(prompt.page_keys.size())},
                                          {"held", absl::StrCat(held)},
                                          {"limit", absl::StrCat(limits.pages)},
                                          {"tenant_limit", absl::StrCat(limits.tenant_pages)}},
                             .retry_after = absl::Seconds(10)},
                   absl::StrCat("the session would keep ", prompt.page_keys.size(),
                                " pages; sessions keep ", held, ", limit ", limits.pages,
                                " a worker, ", limits.tenant_pages, " a tenant"));
}

void EngineCore::On(MediaMessage message) {
  if (observer_ != nullptr) observer_->OnMediaSeen(message.id);
  Sequence* sequence = Find(message.id);
  if (sequence == nullptr || sequence->phase() != SequencePhase::kPrefill) return;
  const bool waited = sequence->WaitsForPatches();
  for (SequenceView::VisualView& visual : sequence->visuals_left) {
    PatchSource::State state = sequence->prompt->spec.visuals[visual.visual_idx]->state();
    if (!state.status.ok()) {
      End(*sequence, std::move(state.status), FinishReason::kStop);
      return;
    }
    visual.t_ready = state.t_ready;
  }
  // Who could not have used its share does not keep it: nobody waits behind a burst.
  Lane& lane = lanes_[sequence->lane];
  if (waited) sequence->service = std::max(sequence->service, lane.prefill_clock);
  attention_[lane.index] = 1;
}

void EngineCore::On(FailMessage message) {
  if (Sequence* sequence = Find(message.id)) {
    End(*sequence, std::move(message.status), FinishReason::kStop);
  }
}

void EngineCore::On(StopMessage message) {
  if (Sequence* sequence = Find(message.id)) {
    End(*sequence, absl::OkStatus(), FinishReason::kStop);
  }
}

void EngineCore::On(CancelMessage message) {
  if (Sequence* sequence = Find(message.id)) {
    End(*sequence, MakeError(absl::StatusCode::kCancelled, "CANCELLED", "cancelled by the caller"),
        FinishReason::kStop);
  }
}

void EngineCore::On(EndAllMessage) {
  std::vector<Sequence*> open;
  for (auto& [id, sequence] : sequences_) open.push_back(sequence.get());
  for (Sequence* sequence : open) {
    if (sequence->output_tokens > 0) {
      End(*sequence, absl::OkStatus(), FinishReason::kDrain);
    } else {
      End(*sequence,
          MakeError(absl::StatusCode::kUnavailable,
                    ErrorInfo{.reason = "DRAINING", .retry_after = absl::Seconds(1)},
                    "the server is draining"),
          FinishReason::kDrain);
    }
  }
}

void EngineCore::On(UnpinMessage message) {
  for (Lane& lane : lanes_) lane.admission->Unpin(message.session);
  admission_changed_ = true;
}

void EngineCore::On(SequencesReleased event) {
  for (auto& [id, account] : event.accounts) {
    Sequence* sequence = Find(RequestId{id.value});
    VNSA_CHECK(sequence != nullptr) << "I11: released sequence " << id << " is unknown";
    if (sequence->release_lane == event.worker) {
      Left(*sequence, account);
      continue;
    }
    VNSA_CHECK(sequence->phase() == SequencePhase::kFinished)
        << "I11: released sequence " << id << " has not ended";
    if (!sequence->finish_sent) SendFinish(*sequence, std::move(account));
    Forget(*sequence);
  }
}

void EngineCore::On(StepDone event) {
  Lane& lane = lanes_[event.worker];
  VNSA_CHECK(!lane.submitted.empty() && lane.submitted.front().plan.step == event.result.step)
      << "I9: step " << event.result.step << " was not next for worker " << event.worker;
  const SubmittedStep step = std::move(lane.submitted.front());
  lane.submitted.pop_front();
  --lane.jobs_in_flight;
  attention_[lane.index] = 1;
  CheckStepComplete(step, event);
  CountStep(step, event, ObserveCost(step, event));
  for (Sequence* sequence : step.members) {
    --sequence->in_flight;
    VNSA_CHECK_GE(sequence->in_flight, 0) << "I7: request " << sequence->request.id;
  }
  for (const VisionSlice& slice : event.result.reused_vision) {
    if (Sequence* sequence = Find(RequestId{slice.sequence.value})) NoteReused(*sequence, slice);
  }
  ReportProgress(step);
  for (auto& [id, status] : event.rejected) {
    CountRejected(status);
    if (Sequence* sequence = Find(RequestId{id.value})) {
      End(*sequence, std::move(status), FinishReason::kStop);
    }
  }
  for (const SampledToken& token : event.result.tokens) TakeToken(token);
  for (const SequenceId id : event.result.skipped) {
    if (Sequence* sequence = Find(RequestId{id.value})) {
      End(*sequence, MakeError(absl::StatusCode::kCancelled, "CANCELLED", "cancelled"),
          FinishReason::kStop);
    }
  }
}

void EngineCore::On(WorkerFailed event) {
  Lane& lane = lanes_[event.worker];
  if (lane.beneficiary != nullptr) StopLeaving(*lane.beneficiary);
  lane.state = options_.restarts ? Lane::State::kRestarting : Lane::State::kLost;
  ++lane.epoch;
  if (info_.gpu >= 0) metrics_.gpu_lost.Add();
  std::vector<Sequence*> lost = lane.running;
  lost.insert(lost.end(), lane.ended.begin(), lane.ended.end());
  for (Sequence* sequence : lost) {
    sequence->in_flight = 0;
    End(*sequence, DeviceLost(event.status), FinishReason::kStop);
    if (!sequence->finish_sent) SendFinish(*sequence, {});
    if (sequence->pages.size() > 0) Unadmit(*sequence);
    Forget(*sequence);
  }
  // Ended sequences whose release was under way are known by their phase alone.
  std::vector<Sequence*> released, left;
  for (auto& [id, sequence] : sequences_) {
    if (sequence->lane == lane.index) released.push_back(sequence.get());
    if (sequence->release_lane == lane.index) left.push_back(sequence.get());
  }
  for (Sequence* sequence : left) Left(*sequence, {});
  for (Sequence* sequence : released) {
    VNSA_CHECK(sequence->phase() == SequencePhase::kFinished)
        << "I6: request " << sequence->request.id;
    if (!sequence->finish_sent) SendFinish(*sequence, {});
    Forget(*sequence);
  }
  lane.ended.clear();
  lane.to_add.clear();
  lane.Reset(info_, options_.hidden_bytes);
  if (!options_.restarts) EndIfAllLost(event.status);
}

void EngineCore::On(WorkerRestarted event) {
  Lane& lane = lanes_[event.worker];
  VNSA_CHECK(lane.state == Lane::State::kRestarting) << "worker " << event.worker;
  lane.state = event.status.ok() ? Lane::State::kServing : Lane::State::kLost;
  admission_changed_ = true;
  attention_[lane.index] = 1;
  if (!event.status.ok()) EndIfAllLost(event.status);
}

void EngineCore::EndIfAllLost(const absl::Status& cause) {
  for (const Lane& lane : lanes_) {
    if (lane.state != Lane::State::kLost) return;
  }
  failure_ = cause;
  std::vector<Sequence*> open;
  for (auto& [id, sequence] : sequences_) open.push_back(sequence.get());
  for (Sequence* sequence : open) {
    End(*sequence, DeviceLost(failure_), FinishReason::kStop);
  }
}

void EngineCore::TakeToken(const SampledToken& token) {
  Sequence* sequence = Find(RequestId{token.sequence.value});
  VNSA_CHECK(sequence != nullptr) << "I10: token of unknown sequence " << token.sequence;
  if (sequence->phase() == SequencePhase::kFinished) return;
  const absl::Duration now = clock_.Monotonic();
  if (sequence->phase() == SequencePhase::kPrefill) {
    sequence->SetPhase(SequencePhase::kDecode);
    Lane& lane = lanes_[sequence->lane];
    MovePin(*sequence);
    lane.admission->Publish(*sequence);
    std::erase(lane.prefilling, sequence);
    NoteFirstToken(*sequence, now);
  }
  VNSA_CHECK_LT(sequence->output_tokens, sequence->planned_outputs)
      << "I16: request " << sequence->request.id << " samples a token again";
  sequence->last_token_time = now;
  ++sequence->output_tokens;
  sequence->output_ids.push_back(token.token_id);
  sequence->request.stream->Token(token);
  if (token.is_stop_token) {
    sequence->ended_by_stop_token = true;
    End(*sequence, absl::OkStatus(), FinishReason::kStop);
  } else if (sequence->output_tokens >= sequence->prompt->spec.sampling.max_output_tokens) {
    End(*sequence, absl::OkStatus(),
        sequence->prompt->limited_by_context ? FinishReason::kContext : FinishReason::kLength);
  }
}

void EngineCore::NoteFirstToken(Sequence& sequence, absl::Duration now) {
  if (sequence.leave_time != -absl::InfiniteDuration()) {
    sequence.preempted_time += now - std::exchange(sequence.leave_time, -absl::InfiniteDuration());
  }
  if (sequence.first_token_time != -absl::InfiniteDuration()) return;  // of an earlier stay
  sequence.first_token_time = now;
  sequence.request.stream->Prefilled(sequence.prompt->prompt_tokens, sequence.reused_tokens,
                                     now - sequence.admit_time);
}

void EngineCore::CheckStepComplete(const SubmittedStep& step, const StepDone& event) {
  const auto settle = [this](SequenceId id, int owed) {
    Sequence* sequence = Find(RequestId{id.value});
    VNSA_CHECK(sequence != nullptr) << "I10: result for unknown sequence " << id;
    sequence->tokens_owed = owed;
  };
  for (Sequence* sequence : step.due) sequence->tokens_owed = 1;
  for (const SampledToken& token : event.result.tokens) {
    Sequence* sequence = Find(RequestId{token.sequence.value});
    VNSA_CHECK(sequence != nullptr && --sequence->tokens_owed == 0)
        << "I10: token of sequence " << token.sequence << " that owed none";
  }
  for (const SequenceId id : event.result.skipped) settle(id, 0);
  for (const auto& [id, status] : event.rejected) settle(id, 0);
  for (const Sequence* sequence : step.due) {
    VNSA_CHECK_EQ(sequence->tokens_owed, 0)
        << "I10: no token of sequence " << sequence->id() << " in step " << step.plan.step;
  }
}

void EngineCore::ReportProgress(const SubmittedStep& step) {
  const absl::Duration now = clock_.Monotonic();
  // Who hears of the way to its first token: not those that come back with a part of the answer.
  const auto hears = [](const Sequence* sequence) {
    return sequence != nullptr && sequence->phase() != SequencePhase::kFinished &&
           sequence->first_token_time == -absl::InfiniteDuration();
  };
  for (const VisionSlice& slice : step.plan.vision) {
    Sequence* sequence = Find(RequestId{slice.sequence.value});
    if (!hears(sequence)) continue;
    sequence->vision_end_time = now;
    const PatchGrid& grid = sequence->prompt->spec.visuals[slice.visual_idx]->grid();
    sequence->request.stream->Progress("vision", slice.t_end, grid.t);
  }
  for (const PrefillSlice& slice : step.plan.prefill) {
    Sequence* sequence = Find(RequestId{slice.sequence.value});
    if (!hears(sequence)) continue;
    const int64_t total = sequence->prompt_len();
    const int64_t done =
        sequence->layerwise() ? total * slice.layer_end / info_.num_layers : slice.token_end;
    sequence->request.stream->Progress("prefill", done, total);
  }
}

void EngineCore::End(Sequence& sequence, absl::Status status, FinishReason reason) {
  const SequencePhase phase = sequence.phase();
  if (phase == SequencePhase::kFinished) return;
  sequence.SetPhase(SequencePhase::kFinished);
  sequence.end_status = std::move(status);
  sequence.finish_reason = reason;
  sequence.request.cancelled->store(true, std::memory_order_release);
  sequence.CloseVisuals();
  if (sequence.request.deadline < absl::InfiniteDuration()) {
    deadlines_.erase({sequence.request.deadline, sequence.request.id.value});
  }
  if (phase == SequencePhase::kWaitingMedia) --waiting_media_;
  StopLeaving(sequence);
  admission_changed_ = true;
  if (phase == SequencePhase::kPrefill || phase == SequencePhase::kDecode) {
    RemoveFromLane(sequence);
    lanes_[sequence.lane].ended.push_back(&sequence);
    // A complete answer waits for its account; a failed one need not.
    if (!sequence.end_status.ok()) SendFinish(sequence, {});
    return;
  }
  if (sequence.release_lane >= 0) {  // it left and is not back in the queue
    if (!sequence.end_status.ok()) SendFinish(sequence, {});
    return;
  }
  if (phase == SequencePhase::kWaiting) {
    waiting_.Remove(sequence.request.id);
    waiting_seconds_ -= sequence.predicted_seconds;
  }
  SendFinish(sequence, {});
  Forget(sequence);
}

void EngineCore::RemoveFromLane(Sequence& sequence) {
  Lane& lane = lanes_[sequence.lane];
  std::erase(lane.running, &sequence);
  std::erase(lane.prefilling, &sequence);
  std::erase(lane.victims, &sequence);
  --running_;
  --running_by_priority_[static_cast<int>(sequence.request.priority)];
  running_seconds_ -= sequence.predicted_seconds;
  attention_[lane.index] = 1;
}

void EngineCore::Unadmit(Sequence& sequence) {
  lanes_[sequence.lane].admission->Release(sequence);
  admission_changed_ = true;
}

void EngineCore::SendFinish(Sequence& sequence, AttentionAccount account) {
  VNSA_CHECK(!sequence.finish_sent) << "I11: request " << sequence.request.id << " ends twice";
  sequence.finish_sent = true;
  GenerateResult result = FinalResult(sequence, clock_.Monotonic());
  result.account = AccountOf(sequence, std::move(account));
  sequence.request.stream->Finish(sequence.end_status, std::move(result));
  if (observer_ != nullptr) observer_->OnEnded(sequence.request.id);
}

void EngineCore::Forget(Sequence& sequence) {
  VNSA_CHECK(sequence.finish_sent) << "I11: request " << sequence.request.id << " never ended";
  VNSA_CHECK_EQ(sequence.pages.size(), 0) << "I8: pages of request " << sequence.request.id;
  const RequestId id = sequence.request.id;
  sequences_.erase(id);
}

EngineSnapshot EngineCore::Snapshot() const {
  EngineSnapshot snapshot;
  snapshot.waiting_media = waiting_media_;
  snapshot.waiting = waiting_.size();
  snapshot.running = running_;
  for (const Priority priority : {Priority::kBatch, Priority::kStandard, Priority::kInteractive}) {
    snapshot.waiting_by_priority[static_cast<int>(priority)] = waiting_.size(priority);
  }
  for (const Lane& lane : lanes_) {
    snapshot.pages_total += lane.admission->pool().capacity();
    snapshot.pages_used += lane.admission->pool().num_used();
    snapshot.pages_cached += lane.admission->index().num_cached();
    snapshot.pages_pinned += lane.admission->pins().num_pages();
    snapshot.workers_serving += lane.state == Lane::State::kServing;
  }
  snapshot.workers = static_cast<int>(lanes_.size());
  snapshot.backlog_seconds = std::max(0.0, waiting_seconds_ + running_seconds_);
  snapshot.steps = next_step_ - 1;
  snapshot.preemptions = preemptions_;
  snapshot.cost = cost_;
  snapshot.failure = failure_;
  return snapshot;
}

}  // namespace videonsa
