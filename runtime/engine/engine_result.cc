// The half of EngineCore that accounts: final reports and invariants.
#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/engine/engine_core.h"

namespace videonsa {

GenerateResult EngineCore::FinalResult(Sequence& sequence, absl::Duration now) const {
  GenerateResult result;
  if (sequence.prompt != nullptr) result = std::move(sequence.prompt->result);
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
  result.usage.output_tokens = sequence.output_tokens;
  result.usage.cached_prompt_tokens = sequence.cached_tokens;
  result.usage.kv_pages_peak = sequence.pages_reserved;
  if (sequence.cached_tokens > 0) {
    result.kv_reuse = KvReuse::kExact;
  } else if (sequence.reused_visuals > 0) {
    result.kv_reuse = KvReuse::kFeatures;
  }
  return result;
}

void EngineCore::CheckInvariants() const {
  int held = 0, waiting = 0, waiting_media = 0, running = 0;
  int64_t hidden = 0;
  std::vector<int> references(admission_.pool().capacity(), 0);
  for (const auto& [id, sequence] : sequences_) {
    waiting_media += sequence->phase() == SequencePhase::kWaitingMedia;
    waiting += sequence->phase() == SequencePhase::kWaiting;
    running +=
        sequence->phase() == SequencePhase::kPrefill || sequence->phase() == SequencePhase::kDecode;
    VNSA_CHECK_EQ(sequence->pages.size(), sequence->need.pages) << "I8: request " << id;
    held += sequence->need.pages;
    hidden += sequence->need.hidden_bytes;
    for (const int32_t page : sequence->pages.pages()) ++references[page];
  }
  VNSA_CHECK_EQ(waiting_media, waiting_media_);
  VNSA_CHECK_EQ(waiting, waiting_.size());
  VNSA_CHECK_EQ(running, static_cast<int>(running_.size()));
  VNSA_CHECK_LE(running, options_.max_running);
  VNSA_CHECK_EQ(hidden, admission_.hidden().used()) << "I3";
  VNSA_CHECK_LE(static_cast<int>(submitted_.size()), options_.plan_depth) << "I9";
  int64_t references_in_pool = 0;
  int used = 0;
  for (int32_t page = 0; page < admission_.pool().capacity(); ++page) {
    const int refs = admission_.pool().refs(page);
    VNSA_CHECK_LE(references[page], refs) << "I1: page " << page;
    references_in_pool += refs;
    used += refs > 0;
  }
  VNSA_CHECK_EQ(used, admission_.pool().num_used()) << "I1";
  VNSA_CHECK_EQ(references_in_pool, int64_t{held} + admission_.index().size()) << "I1";
}

}  // namespace videonsa
