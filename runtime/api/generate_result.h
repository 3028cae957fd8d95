#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/api/attention_account.h"
#include "runtime/api/generate_request.h"

namespace videonsa {

/// A token with its log-probability; alternatives best first, theirs are empty.
struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;
  std::vector<TokenLogprob> alternatives;
};

/// New text of an answer. Complete UTF-8 characters only.
struct TokenChunk {
  std::string text;
  int token_count = 0;
  std::vector<TokenLogprob> logprobs;
};

/// Prompt tokens by kind.
struct PromptTokens {
  int64_t text = 0;
  int64_t vision = 0;
};

/// What was really looked at in one clip or picture.
struct VisualReport {
  bool image = false;
  int source_width = 0;  ///< pixels, after rotation
  int source_height = 0;
  int width = 0;  ///< pixels given to the vision tower
  int height = 0;
  std::vector<absl::Duration> frame_times;
  int64_t tokens = 0;
  int64_t token_begin = 0;  ///< prompt index of the first pad
  double sampled_fps = 0;
  int64_t frames_decoded = 0;
  PreprocessMode mode = PreprocessMode::kLmmsEval;
};

enum class FinishReason { kStop, kLength, kContext, kDeadline, kDrain };

enum class KvReuse { kNone, kFeatures, kExact };

/// Durations of the phases, one monotonic clock. Phase names are the same in reply, metric and log.
struct Timing {
  absl::Time receive_time;
  absl::Duration queue, fetch, decode, preprocess, tokenize, vision, prefill, generate;
  absl::Duration time_to_first_token, mean_inter_token, total;
  absl::Duration preempted;  ///< out of its place, until the next token; inside the others
  int preemptions = 0;       ///< times that it was put back in the queue
};

struct Usage {
  PromptTokens prompt;
  int64_t cached_prompt_tokens = 0;
  int64_t output_tokens = 0;  ///< with the end token
  int64_t frames_decoded = 0;
  int64_t frames_used = 0;
  int64_t kv_pages_peak = 0;
};

/// Attention settings that really ran.
struct EffectiveAttention {
  AttentionSemantics semantics = AttentionSemantics::kDense;
  int selected_blocks = 0;
  int window_tokens = 0;
  bool clamped = false;  ///< max_budget_fraction lowered a setting
  int copies = 1;        ///< 2 for released_nsa
};

/// Everything but the text of a finished answer.
struct GenerateResult {
  FinishReason finish_reason = FinishReason::kStop;
  std::string matched_stop;
  Usage usage;
  Timing timing;
  EffectiveAttention attention;
  AttentionAccount account;
  std::vector<VisualReport> visuals;
  KvReuse kv_reuse = KvReuse::kNone;
  GenerationParams effective_generation;  ///< every optional set
  /// What was generated, without the end token, and its text: a later turn goes on from the ids,
  /// unless a stop string cut the text short.
  std::vector<int32_t> answer_ids;
  std::string answer_text;
  int pinnable_pages = 0;  ///< full pages of the prompt that may be shared
};

/// Answer of an estimate; nothing was run but probing and layout.
struct EstimateResult {
  PromptTokens prompt;
  int64_t frames = 0;
  int64_t kv_pages = 0;
  int64_t kv_bytes = 0;
  /// Everything that the request takes while it runs beyond what the idle server holds.
  int64_t peak_bytes = 0;
  double budget_fraction = 0;
  bool admissible = true;
  absl::Status why;                           ///< set when not admissible
  absl::Duration time_to_first_token, total;  ///< predicted for an idle server
  std::vector<VisualReport> visuals;
};

/// Where a request's progress goes.
///
/// Threads: called from runtime threads, one call at a time per request, in the order accepted,
///          (progress | prefill | chunk)*, finish. No call blocks; none comes after OnFinish.
/// Lifetime: the runtime keeps the shared_ptr until OnFinish returned.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  /// The request is in the queue; `ahead` requests stand before it in its class.
  virtual void OnAccepted(RequestId id, int ahead) = 0;
  /// `stage` is one of "fetch", "decode", "preprocess", "vision", "prefill"; total 0 if unknown.
  virtual void OnProgress(const char* stage, int64_t done, int64_t total) = 0;
  virtual void OnPrefill(const PromptTokens& prompt, int64_t cached_tokens,
                         absl::Duration took) = 0;
  /// Returns false if nobody reads any more; the runtime then cancels the request.
  virtual bool OnChunk(TokenChunk chunk) = 0;
  /// The one and only end. `result` is meaningful when `status` is OK.
  virtual void OnFinish(const absl::Status& status, GenerateResult result) = 0;
};

}  // namespace videonsa
