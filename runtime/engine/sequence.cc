#include "runtime/engine/sequence.h"

#include "runtime/base/check.h"

namespace videonsa {

const char* PhaseName(SequencePhase phase) {
  switch (phase) {
    case SequencePhase::kWaitingMedia:
      return "waiting_media";
    case SequencePhase::kWaiting:
      return "waiting";
    case SequencePhase::kPrefill:
      return "prefill";
    case SequencePhase::kDecode:
      return "decode";
    case SequencePhase::kFinished:
      return "finished";
  }
  return "unknown";
}

bool MayFollow(SequencePhase from, SequencePhase to) {
  using P = SequencePhase;
  // Rows: from; columns: kWaitingMedia, kWaiting, kPrefill, kDecode, kFinished.
  static constexpr bool kTable[5][5] = {
      /* kWaitingMedia */ {false, true, false, false, true},
      /* kWaiting      */ {false, false, true, false, true},
      /* kPrefill      */ {false, true, false, true, true},
      /* kDecode       */ {false, true, false, false, true},
      /* kFinished     */ {false, false, false, false, false},
  };
  static_assert(static_cast<int>(P::kFinished) == 4);
  return kTable[static_cast<int>(from)][static_cast<int>(to)];
}

void Sequence::SetPhase(SequencePhase next) {
  VNSA_CHECK(MayFollow(phase_, next))
      << "I6: request " << request.id << " from " << PhaseName(phase_) << " to " << PhaseName(next);
  phase_ = next;
}

void Sequence::SetPrompt(std::unique_ptr<PreparedPrompt> ready) {
  prompt = std::move(ready);
  prompt_len_ = static_cast<int>(prompt->spec.token_ids.size());
  layerwise_ = NeedsWholePrompt(prompt->spec.attention.semantics);
  SetPhase(SequencePhase::kWaiting);
}

bool Sequence::MayBePreempted(int max_preemptions) const {
  if (preemptions >= max_preemptions || leaving) return false;
  if (preemptions > 0 && output_tokens <= tokens_at_leaving) return false;
  return prompt->spec.visuals.empty() || prompt->reopen != nullptr;
}

void Sequence::CloseVisuals() {
  if (prompt == nullptr) return;
  for (const std::shared_ptr<PatchSource>& visual : prompt->spec.visuals) {
    if (visual != nullptr) visual->Close();
  }
}

void Sequence::TakeMediaCosts() {
  GenerateResult& result = prompt->result;
  for (size_t i = 0; i < result.visuals.size(); ++i) {
    // What was decoded beside the model is not in the seed.
    const PatchSource* source = prompt->spec.visuals[i].get();
    if (source == nullptr) continue;
    const PatchSource::State state = source->state();
    result.visuals[i].frames_decoded += state.frames_decoded;
    result.usage.frames_decoded += state.frames_decoded;
    result.timing.decode += state.decode_time;
    result.timing.preprocess += state.preprocess_time;
  }
}

void Sequence::EndStay() {
  VNSA_CHECK(phase_ == SequencePhase::kWaiting && pages.size() == 0 && in_flight == 0)
      << "request " << request.id;
  TakeMediaCosts();
  CloseVisuals();
  if (prompt->reopen != nullptr) prompt->spec.visuals = prompt->reopen();
  leaving = false;
  lane = -1;
  cached_tokens = 0;
  visuals_left.clear();
  next_token = next_layer = next_replay = planned_outputs = tokens_owed = 0;
  prompt_planned = false;
}

}  // namespace videonsa
