#pragma once

#include <atomic>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/engine/engine_core.h"

namespace videonsa {

/// The door: which requests are open, how many may still come in.
///
/// Bounds everything behind it: each open request has a fixed number of messages in the engine's
/// inbox (kMessagesPerRequest), so a queue sized for `capacity()` requests never overflows.
///
/// Threads: all methods may be called from any thread; only AwaitEmpty waits.
class OpenRequests : public EngineObserver {
 public:
  /// Submit, Ready or Fail, Media, Stop, Cancel.
  static constexpr int kMessagesPerRequest = 5;

  enum class Refusal { kNone, kQueueFull, kClosed };

  OpenRequests(int max_running, int max_waiting)
      : max_running_(max_running), max_waiting_(max_waiting) {}

  int capacity() const { return max_running_ + max_waiting_; }
  /// Open requests that are not admitted.
  int num_waiting() const;

  /// Lets a request in unless max_waiting wait already; `ahead` is how many do.
  Refusal TryOpen(RequestId id, std::shared_ptr<std::atomic<bool>> cancelled, int* ahead);
  /// Takes back a TryOpen whose request never reached the engine.
  void OnEnded(RequestId id) override;
  void OnAdmitted(RequestId id) override;
  /// It counts as waiting again, so that no more than capacity() are ever open.
  void OnPreempted(RequestId id) override;
  void OnMediaSeen(RequestId id) override;

  /// Sets the cancel flag; returns whether the caller must tell the engine (the first time only).
  bool MarkCancelled(RequestId id);
  /// The same for a stop; the flag stays as it is.
  bool MarkStopped(RequestId id);
  /// The same for news of the request's media, until the engine has seen them (OnMediaSeen).
  bool MarkMedia(RequestId id);
  std::shared_ptr<const std::atomic<bool>> CancelFlag(RequestId id) const;

  /// Refuses all that come from now on.
  void CloseDoor();
  /// Waits until nothing is open; returns how many still are when `timeout` has passed.
  int AwaitEmpty(absl::Duration timeout);

 private:
  struct Entry {
    std::shared_ptr<std::atomic<bool>> cancelled;
    bool admitted = false;
    bool cancel_sent = false;
    bool stop_sent = false;
    bool media_sent = false;
  };
  bool Empty() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return open_.empty(); }

  const int max_running_;
  const int max_waiting_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<RequestId, Entry> open_ ABSL_GUARDED_BY(mutex_);
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace videonsa
