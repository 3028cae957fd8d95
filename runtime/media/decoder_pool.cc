#include "runtime/media/decoder_pool.h"

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(20);
constexpr absl::Duration kCancelPoll = absl::Milliseconds(10);
constexpr absl::Duration kRetryAfter = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::unique_ptr<DecoderPool>> DecoderPool::Create(const std::string& binary,
                                                                 int count,
                                                                 const DecoderLimits& limits,
                                                                 const MediaMetrics& metrics) {
  VNSA_CHECK_GT(count, 0);
  std::unique_ptr<DecoderPool> pool(new DecoderPool(binary, limits, metrics));
  absl::MutexLock lock(&pool->mutex_);
  for (int i = 0; i < count; ++i) {
    VNSA_ASSIGN_OR_RETURN(auto process, DecoderProcess::Start(binary, limits));
    pool->free_.push_back(std::move(process));
  }
  metrics.workers_idle.Add(count);
  const DecodeLimits soon{.timeout = Clock::Real().Monotonic() + kStartTimeout};
  for (auto& process : pool->free_) {
    if (process->AwaitReady(soon).ok()) continue;
    return MakeError(absl::StatusCode::kFailedPrecondition, "DECODER_NOT_STARTED",
                     "videonsa-decoder was started but did not answer");
  }
  return pool;
}

absl::StatusOr<DecoderPool::Lease> DecoderPool::Acquire(const DecodeLimits& limits) {
  const Clock& clock = Clock::Real();
  std::unique_ptr<DecoderProcess> process;
  mutex_.Lock();
  while (free_.empty()) {
    mutex_.AwaitWithTimeout(
        absl::Condition(
            +[](std::vector<std::unique_ptr<DecoderProcess>>* free) { return !free->empty(); },
            &free_),
        kCancelPoll);
    const bool cancelled =
        limits.control && limits.control->cancelled && limits.control->cancelled->load();
    if (cancelled || clock.Monotonic() >= limits.deadline) {
      mutex_.Unlock();
      return cancelled
                 ? MakeError(absl::StatusCode::kCancelled, "CANCELLED", "the request was cancelled")
                 : MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                             "the deadline passed while waiting for a decoder process");
    }
  }
  process = std::move(free_.back());
  free_.pop_back();
  CountLent(1);
  mutex_.Unlock();
  // It may have died while it was idle.
  if (process && process->Fresh()) return Lease(this, std::move(process));
  Lease lease(this, std::move(process));
  VNSA_RETURN_IF_ERROR(lease.Replace());
  return lease;
}

absl::Status DecoderPool::Lease::Replace() {
  pool_->Retire(std::move(process_));
  auto started = DecoderProcess::Start(pool_->binary_, pool_->limits_);
  if (started.ok()) {
    process_ = *std::move(started);
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kUnavailable,
                   ErrorInfo{.reason = "DECODER_DIED", .retry_after = kRetryAfter},
                   "no decoder process could be started");
}

void DecoderPool::Return(std::unique_ptr<DecoderProcess> process) {
  if (!process || !process->Fresh()) {
    Retire(std::move(process));
    auto started = DecoderProcess::Start(binary_, limits_);
    if (started.ok()) process = *std::move(started);
  }
  absl::MutexLock lock(&mutex_);
  CountLent(-1);
  free_.push_back(std::move(process));
}

void DecoderPool::Retire(std::unique_ptr<DecoderProcess> process) const {
  if (!process) return;
  process->Kill();
  metrics_.exits[static_cast<int>(process->exit())].Add();
}

void DecoderPool::CountLent(int change) {
  lent_ += change;
  metrics_.workers_busy.Add(change);
  metrics_.workers_idle.Add(-change);
}

int DecoderPool::num_alive() const {
  absl::MutexLock lock(&mutex_);
  return lent_ +
         static_cast<int>(std::count_if(free_.begin(), free_.end(), [](const auto& process) {
           return process && process->Alive();
         }));
}

}  // namespace videonsa
