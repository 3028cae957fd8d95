#include "runtime/engine/open_requests.h"

#include <utility>

namespace videonsa {

OpenRequests::Refusal OpenRequests::TryOpen(RequestId id,
                                            std::shared_ptr<std::atomic<bool>> cancelled,
                                            int* ahead) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return Refusal::kClosed;
  *ahead = waiting_;
  if (waiting_ >= max_waiting_) return Refusal::kQueueFull;
  ++waiting_;
  Entry entry;
  entry.cancelled = std::move(cancelled);
  open_.emplace(id, std::move(entry));
  return Refusal::kNone;
}

void OpenRequests::OnEnded(RequestId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(id);
  if (it == open_.end()) return;
  if (!it->second.admitted) --waiting_;
  open_.erase(it);
}

void OpenRequests::OnAdmitted(RequestId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(id);
  if (it == open_.end() || it->second.admitted) return;
  it->second.admitted = true;
  --waiting_;
}

void OpenRequests::OnPreempted(RequestId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(id);
  if (it == open_.end() || !it->second.admitted) return;
  it->second.admitted = false;
  ++waiting_;
}

bool OpenRequests::MarkCancelled(RequestId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(id);
  if (it == open_.end()) return false;
  it->second.cancelled->store(true, std::memory_order_release);
  return !std::exchange(it->second.cancel_sent, true);
}

bool OpenRequests::MarkStopped(RequestId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(id);
  if (it == open_.end()) return false;
  return !std::exchange(it->second.stop_sent, true);
}

bool OpenRequests::MarkMedia(RequestId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(id);
  if (it == open_.end()) return false;
  return !std::exchange(it->second.media_sent, true);
}

void OpenRequests::OnMediaSeen(RequestId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(id);
  if (it != open_.end()) it->second.media_sent = false;
}

std::shared_ptr<const std::atomic<bool>> OpenRequests::CancelFlag(RequestId id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = open_.find(id);
  return it == open_.end() ? nullptr : it->second.cancelled;
}

int OpenRequests::num_waiting() const {
  absl::MutexLock lock(&mutex_);
  return waiting_;
}

void OpenRequests::CloseDoor() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

int OpenRequests::AwaitEmpty(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(this, &OpenRequests::Empty), timeout);
  return static_cast<int>(open_.size());
}

}  // namespace videonsa
