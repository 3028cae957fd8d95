#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runtime/engine/request.h"

namespace videonsa {

/// Shape of a prompt that MakePrompt fills with numbers drawn from `seed`.
struct PromptShape {
  uint64_t seed = 1;
  int text_before = 10;  ///< tokens before the visual
  int frames = 0;        ///< temporal patches of the one visual, 0: none; 4 tokens each
  std::shared_ptr<PatchSource> source;  ///< of the visual; null: all patches are there
  /// PreparedPrompt::reopen of a visual with a source; null: it cannot be had again.
  std::function<std::vector<std::shared_ptr<PatchSource>>()> reopen;
  int text_after = 10;
  int max_output_tokens = 8;
  AttentionSemantics semantics = AttentionSemantics::kDense;
  bool ignore_eos = false;
  std::string tenant = "t";
  /// The first tokens come from this seed instead, so that prompts share a prefix.
  uint64_t prefix_seed = 0;
  int prefix_tokens = 0;
};

/// A prompt as the media stage would hand it over, with page keys and forecast.
std::unique_ptr<PreparedPrompt> MakePrompt(const PromptShape& shape);

/// The prompt of `shape` that goes on with `tokens`, one position each.
std::unique_ptr<PreparedPrompt> ContinuePrompt(const PromptShape& shape,
                                               const std::vector<int32_t>& tokens);

/// An answer stream that writes down what it gets and checks the order of calls.
class RecordingStream : public AnswerStream {
 public:
  void Accepted(RequestId id, int ahead) override;
  void Progress(const char* stage, int64_t done, int64_t total) override;
  void Prefilled(const PromptTokens& prompt, int64_t cached_tokens, absl::Duration took) override;
  void Token(const SampledToken& token) override;
  void Finish(const absl::Status& status, GenerateResult result) override;

  /// Waits until Finish has been called.
  void AwaitFinish();

  bool finished() const;
  int num_finishes() const;
  std::vector<int32_t> tokens() const;
  int64_t cached_tokens() const;
  absl::Status status() const;
  GenerateResult result() const;

 private:
  mutable absl::Mutex mutex_;
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;
  bool prefilled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  int finishes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<int32_t> tokens_ ABSL_GUARDED_BY(mutex_);
  int64_t cached_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  GenerateResult result_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace videonsa
