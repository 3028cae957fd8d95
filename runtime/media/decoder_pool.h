#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/media/decoder_process.h"

namespace videonsa {

/// A fixed number of decoder processes; each serves one load and is then ended.
///
/// A process is replaced when it comes back, so that the next load finds one already started.
///
/// Threads: all methods may be called from any thread.
class DecoderPool {
 public:
  /// A process lent out; goes back with its owner.
  class Lease {
   public:
    Lease(DecoderPool* pool, std::unique_ptr<DecoderProcess> process)
        : pool_(pool), process_(std::move(process)) {}
    ~Lease() {
      if (pool_) pool_->Return(std::move(process_));
    }
    Lease(Lease&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)), process_(std::move(other.process_)) {}
    Lease& operator=(Lease&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(process_, other.process_);
      return *this;
    }
    DecoderProcess* operator->() const { return process_.get(); }
    /// Kills the process and starts another in its place. Errors: UNAVAILABLE (DECODER_DIED).
    absl::Status Replace();

   private:
    DecoderPool* pool_;
    std::unique_ptr<DecoderProcess> process_;
  };

  /// Starts `count` processes. Errors: FAILED_PRECONDITION if `binary` does not start and answer.
  static absl::StatusOr<std::unique_ptr<DecoderPool>> Create(const std::string& binary, int count,
                                                             const DecoderLimits& limits,
                                                             const MediaMetrics& metrics);

  /// Waits for a free process that is alive. Errors: CANCELLED, DEADLINE_EXCEEDED, and UNAVAILABLE
  /// (DECODER_DIED) if none can be started.
  absl::StatusOr<Lease> Acquire(const DecodeLimits& limits);

  /// Processes alive now, lent ones included.
  int num_alive() const;

 private:
  DecoderPool(std::string binary, const DecoderLimits& limits, const MediaMetrics& metrics)
      : binary_(std::move(binary)), limits_(limits), metrics_(metrics) {}
  void Return(std::unique_ptr<DecoderProcess> process);
  // Ends the process and counts why.
  void Retire(std::unique_ptr<DecoderProcess> process) const;
  // Gauges are sums over pools.
  void CountLent(int change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string binary_;
  const DecoderLimits limits_;
  const MediaMetrics metrics_;
  mutable absl::Mutex mutex_;
  // Null: the place of a process that could not be started; tried again when lent.
  std::vector<std::unique_ptr<DecoderProcess>> free_ ABSL_GUARDED_BY(mutex_);
  int lent_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace videonsa
