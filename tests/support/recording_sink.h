#pragma once

#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runtime/api/generate_result.h"

namespace videonsa {

/// A response sink that writes down what it gets and checks the order of calls.
class RecordingSink : public ResponseSink {
 public:
  /// Refuses chunks from the n-th on (from 1); 0: takes all.
  explicit RecordingSink(int refuse_from = 0) : refuse_from_(refuse_from) {}

  void OnAccepted(RequestId id, int ahead) override;
  void OnProgress(const char* stage, int64_t done, int64_t total) override;
  void OnPrefill(const PromptTokens& prompt, int64_t cached_tokens, absl::Duration took) override;
  bool OnChunk(TokenChunk chunk) override;
  void OnFinish(const absl::Status& status, GenerateResult result) override;

  /// Waits for OnFinish.
  void Await();
  bool finished() const;
  absl::Status status() const;
  std::string text() const;
  int token_count() const;  ///< sum over chunks
  std::vector<TokenLogprob> logprobs() const;
  GenerateResult result() const;
  std::vector<std::string> stages() const;

 private:
  const int refuse_from_;
  mutable absl::Mutex mutex_;
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;
  bool prefilled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  int chunks_ ABSL_GUARDED_BY(mutex_) = 0;
  int tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string text_ ABSL_GUARDED_BY(mutex_);
  std::vector<TokenLogprob> logprobs_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> stages_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  GenerateResult result_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace videonsa
