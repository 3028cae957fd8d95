#include "server/ask_replay.h"

#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/random_id.h"
#include "server/request_id.h"

namespace videonsa {
namespace {

constexpr int64_t kEntryBytes = 512;  // bookkeeping of one answer, about

}  // namespace

absl::StatusOr<AskReplay::Found> AskReplay::RunFor(ServerCore& core, const std::string& scope,
                                                   const std::string& request_id,
                                                   const google::protobuf::MessageLite& question) {
  if (request_id.empty()) return Found{std::make_shared<AskRun>(core, RandomId()), true};
  VNSA_RETURN_IF_ERROR(CheckRequestId(request_id));
  const std::string key = scope + request_id;
  const Sha256Digest digest = Sha256Of(question.SerializeAsString());
  absl::MutexLock lock(&mutex_);
  Trim();
  const auto found = entries_.find(key);
  if (found != entries_.end()) {
    if (found->second.question != digest) {
      return MakeError(absl::StatusCode::kInvalidArgument, "REQUEST_ID_REUSED",
                       "request_id: used before with another question");
    }
    return Found{found->second.run, false};
  }
  auto run = std::make_shared<AskRun>(core, RandomId());
  Entry& entry = entries_[key];
  entry.question = digest;
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
