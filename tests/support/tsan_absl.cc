// Tells ThreadSanitizer what the distribution's Abseil, which is not instrumented, does: locking is
// an acquire, unlocking a release. Linked into every program of the tsan preset; the functions
// stand before those of the shared library, also for other libraries' calls.
//
// Abseil evaluates the conditions of waiters inside these functions, in whichever thread holds the
// lock at that moment; the lock protects what they read, but the annotations here cannot say so,
// and reads inside are ignored.
#include <dlfcn.h>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

namespace {

using absl::Condition;
using absl::Duration;
using absl::Time;

struct IgnoreReads {
  IgnoreReads() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~IgnoreReads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

// The library's function of the same name.
template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

#define VNSA_NAME(name) __asm__(name)

// A function that takes the lock.
#define VNSA_LOCKS(id, name)                           \
  void id(void* mutex) VNSA_NAME(name);                \
  void id(void* mutex) {                               \
    static auto* const real = Real<void(void*)>(name); \
    real(mutex);                                       \
    __tsan_acquire(mutex);                             \
  }
// A function that releases the lock.
#define VNSA_UNLOCKS(id, name)                         \
  void id(void* mutex) VNSA_NAME(name);                \
  void id(void* mutex) {                               \
    static auto* const real = Real<void(void*)>(name); \
    __tsan_release(mutex);                             \
    IgnoreReads ignore;                                \
    real(mutex);                                       \
  }
#define VNSA_TRIES(id, name)                           \
  bool id(void* mutex) VNSA_NAME(name);                \
  bool id(void* mutex) {                               \
    static auto* const real = Real<bool(void*)>(name); \
    const bool locked = real(mutex);                   \
    if (locked) __tsan_acquire(mutex);                 \
    return locked;                                     \
  }
// Functions that wait for a condition and hold the lock at the end; Await also at the beginning.
#define VNSA_WAITS(id, name)                                             \
  void id(void* mutex, const Condition& condition) VNSA_NAME(name);      \
  void id(void* mutex, const Condition& condition) {                     \
    static auto* const real = Real<void(void*, const Condition&)>(name); \
    __tsan_release(mutex);                                               \
    {                                                                    \
      IgnoreReads ignore;                                                \
      real(mutex, condition);                                            \
    }                                                                    \
    __tsan_acquire(mutex);                                               \
  }
#define VNSA_WAITS_UNTIL(id, name, When)                                       \
  bool id(void* mutex, const Condition& condition, When when) VNSA_NAME(name); \
  bool id(void* mutex, const Condition& condition, When when) {                \
    static auto* const real = Real<bool(void*, const Condition&, When)>(name); \
    bool met;                                                                  \
    __tsan_release(mutex);                                                     \
    {                                                                          \
      IgnoreReads ignore;                                                      \
      met = real(mutex, condition, when);                                      \
    }                                                                          \
    __tsan_acquire(mutex);                                                     \
    return met;                                                                \
  }

#define VNSA_MUTEX "_ZN4absl7debian35Mutex"

VNSA_LOCKS(TsanLock, VNSA_MUTEX "4LockEv")
VNSA_LOCKS(TsanReaderLock, VNSA_MUTEX "10ReaderLockEv")
VNSA_UNLOCKS(TsanUnlock, VNSA_MUTEX "6UnlockEv")
VNSA_UNLOCKS(TsanReaderUnlock, VNSA_MUTEX "12ReaderUnlockEv")
VNSA_TRIES(TsanTryLock, VNSA_MUTEX "7TryLockEv")
VNSA_TRIES(TsanReaderTryLock, VNSA_MUTEX "13ReaderTryLockEv")
VNSA_WAITS(TsanAwait, VNSA_MUTEX "5AwaitERKNS0_9ConditionE")
VNSA_WAITS(TsanLockWhen, VNSA_MUTEX "8LockWhenERKNS0_9ConditionE")
VNSA_WAITS_UNTIL(TsanAwaitWithTimeout,
                 VNSA_MUTEX "16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE", Duration)
VNSA_WAITS_UNTIL(TsanAwaitWithDeadline,
                 VNSA_MUTEX "17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE", Time)
VNSA_WAITS_UNTIL(TsanLockWhenWithTimeout,
                 VNSA_MUTEX "19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE", Duration)
VNSA_WAITS_UNTIL(TsanLockWhenWithDeadline,
                 VNSA_MUTEX "20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE", Time)

#define VNSA_CONDVAR "_ZN4absl7debian37CondVar"

void TsanCondVarWait(void* condvar, void* mutex) VNSA_NAME(VNSA_CONDVAR "4WaitEPNS0_5MutexE");
void TsanCondVarWait(void* condvar, void* mutex) {
  static auto* const real = Real<void(void*, void*)>(VNSA_CONDVAR "4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  {
    IgnoreReads ignore;
    real(condvar, mutex);
  }
  __tsan_acquire(mutex);
}

#define VNSA_CONDVAR_WAITS(id, name, When)                          \
  bool id(void* condvar, void* mutex, When when) VNSA_NAME(name);   \
  bool id(void* condvar, void* mutex, When when) {                  \
    static auto* const real = Real<bool(void*, void*, When)>(name); \
    bool timed_out;                                                 \
    __tsan_release(mutex);                                          \
    {                                                               \
      IgnoreReads ignore;                                           \
      timed_out = real(condvar, mutex, when);                       \
    }                                                               \
    __tsan_acquire(mutex);                                          \
    return timed_out;                                               \
  }
VNSA_CONDVAR_WAITS(TsanCondVarWaitWithTimeout,
                   VNSA_CONDVAR "15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE", Duration)
VNSA_CONDVAR_WAITS(TsanCondVarWaitWithDeadline,
                   VNSA_CONDVAR "16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE", Time)

#define VNSA_NOTIFICATION "_ZN4absl7debian312Notification"

// Notification::HasBeenNotified, which is inline, loads the flag that stands after the mutex.
void TsanNotify(void* notification) VNSA_NAME(VNSA_NOTIFICATION "6NotifyEv");
void TsanNotify(void* notification) {
  static auto* const real = Real<void(void*)>(VNSA_NOTIFICATION "6NotifyEv");
  __tsan_release(static_cast<char*>(notification) + sizeof(absl::Mutex));
  real(notification);
}
