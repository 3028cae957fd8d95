#include "tests/support/recording_sink.h"

#include <utility>

#include "runtime/base/check.h"

namespace videonsa {

void RecordingSink::OnAccepted(RequestId, int) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(!accepted_ && !finished_);
  accepted_ = true;
}

void RecordingSink::OnProgress(const char* stage, int64_t, int64_t) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(!finished_);
  if (stages_.empty() || stages_.back() != stage) stages_.emplace_back(stage);
}

void RecordingSink::OnPrefill(const PromptTokens&, int64_t, absl::Duration) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(accepted_ && !prefilled_ && !finished_);
  prefilled_ = true;
}

bool RecordingSink::OnChunk(TokenChunk chunk) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(prefilled_ && !finished_);
  if (refuse_from_ > 0 && ++chunks_ >= refuse_from_) return false;
  text_ += chunk.text;
  tokens_ += chunk.token_count;
  logprobs_.insert(logprobs_.end(), chunk.logprobs.begin(), chunk.logprobs.end());
  return true;
}

void RecordingSink::OnFinish(const absl::Status& status, GenerateResult result) {
  absl::MutexLock lock(&mutex_);
  VNSA_CHECK(accepted_ && !finished_);
  status_ = status;
  result_ = std::move(result);
  finished_ = true;
}

void RecordingSink::Await() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&finished_));
}

bool RecordingSink::finished() const {
  absl::MutexLock lock(&mutex_);
  return finished_;
}
absl::Status RecordingSink::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}
std::string RecordingSink::text() const {
  absl::MutexLock lock(&mutex_);
  return text_;
}
int RecordingSink::token_count() const {
  absl::MutexLock lock(&mutex_);
  return tokens_;
}
std::vector<TokenLogprob> RecordingSink::logprobs() const {
  absl::MutexLock lock(&mutex_);
  return logprobs_;
}
GenerateResult RecordingSink::result() const {
  absl::MutexLock lock(&mutex_);
  return result_;
}
std::vector<std::string> RecordingSink::stages() const {
  absl::MutexLock lock(&mutex_);
  return stages_;
}

}  // namespace videonsa
