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
      /* kPrefill      */ {false, false, false, true, true},
      /* kDecode       */ {false, false, false, false, true},
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

void Sequence::CloseVisuals() {
  if (prompt == nullptr) return;
  for (const std::shared_ptr<PatchSource>& visual : prompt->spec.visuals) {
    if (visual != nullptr) visual->Close();
  }
}

}  // namespace videonsa
