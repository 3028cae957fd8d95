#include "runtime/engine/lane.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

// How many visuals a lane remembers; executors hold the features of about as many.
constexpr size_t kMaxVisuals = 64;

}  // namespace

Lane::Lane(int idx, const ExecutorInfo& info, int64_t hidden_bytes, const SessionPins::Limits& pins)
    : index(idx), admission(std::make_unique<AdmissionPolicy>(info, hidden_bytes, pins)) {}

double Lane::SecondsAhead(double rank) const {
  double seconds = 0;
  for (const Sequence* sequence : prefilling) {
    // Whoever waits for patches holds up nobody.
    if (sequence->rank <= rank && !sequence->WaitsForPatches()) seconds += sequence->prefill_left;
  }
  return seconds;
}

double Lane::SecondsSaved(const Sequence& sequence) const {
  const PreparedPrompt& prompt = *sequence.prompt;
  if (!prompt.page_keys.empty()) {
    const int shareable = (sequence.prompt_len() - 1) / kPageTokens;
    // Most lanes do not even hold the first page.
    int known = admission->index().Match(prompt.page_keys, std::min(shareable, 1));
    if (known > 0) known = admission->index().Match(prompt.page_keys, shareable);
    if (known > 0) return sequence.prefill_seconds * known * kPageTokens / sequence.prompt_len();
  }
  if (visuals_.empty()) return 0;
  double saved = 0;
  for (const Sha256Digest& key : prompt.spec.visual_keys) {
    if (!visuals_.contains(key)) continue;
    saved += sequence.vision_seconds / static_cast<double>(prompt.spec.visual_keys.size());
  }
  return saved;
}

bool Lane::MayAdmit(const KvNeed& need) const {
  const int held_or_cached = admission->pool().num_free() + admission->index().size();
  return need.pages <= held_or_cached &&
         need.hidden_bytes <= admission->hidden().limit() - admission->hidden().used();
}

void Lane::NoteVisuals(const SequenceSpec& spec) {
  for (const Sha256Digest& key : spec.visual_keys) {
    if (key == Sha256Digest{}) continue;
    visuals_[key] = ++num_visuals_noted_;
    if (visuals_.size() <= kMaxVisuals) continue;
    visuals_.erase(std::min_element(visuals_.begin(), visuals_.end(),
                                    [](auto& a, auto& b) { return a.second < b.second; }));
  }
}

void Lane::Reset(const ExecutorInfo& info, int64_t hidden_bytes) {
  VNSA_CHECK(running.empty() && prefilling.empty() && ended.empty() && to_add.empty());
  VNSA_CHECK(victims.empty() && beneficiary == nullptr) << "I16: worker " << index;
  submitted.clear();
  jobs_in_flight = 0;
  full = false;
  visuals_.clear();
  admission = std::make_unique<AdmissionPolicy>(info, hidden_bytes, admission->pins().limits());
}

}  // namespace videonsa
