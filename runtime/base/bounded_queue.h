#pragma once

#include <deque>
#include <optional>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/base/check.h"

namespace videonsa {

/// A first-in first-out queue with a capacity, for messages between threads.
///
/// When full, TryPush refuses and Push waits; once closed, both refuse and Pop returns what is
/// left and then nothing.
///
/// Threads: all methods may be called from any thread. What a pusher did before Push is visible to
///          the popper after Pop.
template <typename T>
class BoundedQueue {
 public:
  /// Requires: `capacity` > 0.
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) { VNSA_CHECK_GT(capacity, 0u); }
  BoundedQueue(const BoundedQueue&) = delete;
  BoundedQueue& operator=(const BoundedQueue&) = delete;

  /// Adds `item` unless the queue is full or closed; returns whether it was taken. Never waits.
  bool TryPush(T&& item) {
    absl::MutexLock lock(&mutex_);
    if (closed_ || items_.size() >= capacity_) return false;
    items_.push_back(std::move(item));
    return true;
  }

  /// Adds `item`, waiting for room; returns false if the queue is or becomes closed.
  bool Push(T&& item) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &BoundedQueue::HasRoomOrClosed));
    if (closed_) return false;
    items_.push_back(std::move(item));
    return true;
  }

  /// Takes the oldest item, waiting for one; returns nothing when closed and empty.
  std::optional<T> Pop() { return PopBefore(absl::InfiniteFuture()); }

  /// As Pop, but returns nothing when `deadline` passes first.
  std::optional<T> PopBefore(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithDeadline(absl::Condition(this, &BoundedQueue::HasItemOrClosed), deadline);
    if (items_.empty()) return std::nullopt;
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  /// Takes the oldest item if there is one. Never waits.
  std::optional<T> TryPop() { return PopBefore(absl::InfinitePast()); }

  /// Refuses further pushes and wakes all waiters. Idempotent.
  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return items_.size();
  }

  bool closed() const {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }

 private:
  bool HasRoomOrClosed() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closed_ || items_.size() < capacity_;
  }
  bool HasItemOrClosed() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closed_ || !items_.empty();
  }

  const size_t capacity_;
  mutable absl::Mutex mutex_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace videonsa
