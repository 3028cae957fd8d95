#include "server/ask_replay.h"

#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr int64_t kEntryBytes = 512;  // bookkeeping of one answer, about

}  // namespace

absl::StatusOr<AskReplay::Found> AskReplay::FindOrMake(
    const std::string& key, const Sha256Digest& question,
    const std::function<std::shared_ptr<AskRun>()>& make) {
  absl::MutexLock lock(&mutex_);
  Trim();
  const auto found = entries_.find(key);
  if (found != entries_.end()) {
    if (found->second.question != question) {
      return MakeError(absl::StatusCode::kInvalidArgument, "REQUEST_ID_REUSED",
                       "request_id: used before with another question");
    }
    return Found{found->second.run, false};
  }
  std::shared_ptr<AskRun> run = make();
  Entry& entry = entries_[key];
  entry.question = question;
  entry.run = run;
  run->SetDone([this, key, run = run.get()](const absl::Status& status, int64_t bytes) {
    Finished(key, run, status, bytes);
  });
  return Found{std::move(run), true};
}

void AskReplay::Finished(const std::string& key, const AskRun* run, const absl::Status& status,
                         int64_t bytes) {
  std::shared_ptr<AskRun> dropped;  // dies after the lock
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end() || found->second.run.get() != run) return;
  if (!status.ok()) {
    dropped = std::move(found->second.run);
    entries_.erase(found);
    return;
  }
  Entry& entry = found->second;
  entry.bytes = bytes + kEntryBytes;
  entry.finished = clock_.Monotonic();
  entry.age = oldest_.insert(oldest_.end(), key);
  bytes_ += entry.bytes;
  Trim();
}

void AskReplay::Trim() {
  const absl::Duration now = clock_.Monotonic();
  while (!oldest_.empty()) {
    const auto found = entries_.find(oldest_.front());
    if (bytes_ <= max_bytes_ && now - found->second.finished < ttl_) return;
    bytes_ -= found->second.bytes;
    entries_.erase(found);
    oldest_.pop_front();
  }
}

}  // namespace videonsa
