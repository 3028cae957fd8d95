#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/api/generate_request.h"
#include "runtime/api/generate_result.h"
#include "runtime/base/hash.h"
#include "runtime/engine/attention_pairs.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Where the engine writes one answer. Called from the engine thread in the order
/// Accepted, (Progress | Prefilled | Token)*, Finish; no call blocks, none comes after Finish.
class AnswerStream {
 public:
  virtual ~AnswerStream() = default;
  /// `ahead` requests of the same priority wait before this one.
  virtual void Accepted(RequestId id, int ahead) = 0;
  virtual void Progress(const char* stage, int64_t done, int64_t total) = 0;
  /// The first token is about to come; `cached_tokens` of the prompt were not computed again.
  virtual void Prefilled(const PromptTokens& prompt, int64_t cached_tokens,
                         absl::Duration took) = 0;
  virtual void Token(const SampledToken& token) = 0;
  /// The one and only end. `result` is complete when `status` is OK.
  virtual void Finish(const absl::Status& status, GenerateResult result) = 0;
};

/// What the engine knows of a request from the start; immutable.
struct Request {
  RequestId id;  ///< set by Engine::Submit
  std::string tenant;
  Priority priority = Priority::kStandard;
  absl::Duration receive = absl::ZeroDuration();       ///< monotonic
  absl::Duration deadline = absl::InfiniteDuration();  ///< monotonic
  std::shared_ptr<AnswerStream> stream;
  /// Full pages of prompt and answer are kept under this; may be null.
  std::shared_ptr<SessionPin> pin;
  bool must_pin = false;  ///< refuse what the ceilings on kept pages do not let in
  /// Set once by whoever ends the request first; read by media threads and the executor.
  std::shared_ptr<std::atomic<bool>> cancelled;
};

/// A prompt that the media stage has made ready.
struct PreparedPrompt {
  /// Complete but for id, page_ids, cached_tokens and cancelled, which the engine sets.
  SequenceSpec spec;
  /// PrefixKeys of the spec under `page_salt`; empty if nothing may be shared.
  std::vector<Sha256Digest> page_keys;
  std::string page_salt;
  PairForecast forecast;
  PromptTokens prompt_tokens;
  /// The context, not the caller, decided sampling.max_output_tokens.
  bool limited_by_context = false;
  /// New sources of all visuals' rows, not begun, for a sequence that was preempted. Null: they
  /// cannot be had again, so a prompt with visuals keeps its place. Called by the engine's thread;
  /// must not wait.
  std::function<std::vector<std::shared_ptr<PatchSource>>()> reopen;
  /// Seed of the final result: visuals, attention, generation settings, media times and counts.
  GenerateResult result;
};

}  // namespace videonsa
