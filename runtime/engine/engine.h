#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/base/bounded_queue.h"
#include "runtime/base/clock.h"
#include "runtime/engine/engine_core.h"
#include "runtime/engine/open_requests.h"
#include "runtime/engine/worker.h"

namespace videonsa {

/// The thread that owns all sequences, and a worker thread for each executor.
///
/// Threads: all public methods may be called from any thread; only Drain waits.
class Engine {
 public:
  /// Starts the threads. `clock` outlives the engine. EngineOptions::num_workers and `restarts` are
  /// taken from the other arguments.
  ///
  /// A worker whose executor fails ends what runs on it with UNAVAILABLE and opens another executor
  /// by `restart`, if there is one; the others go on. `on_worker_start` is called first by each
  /// worker's thread, with its index.
  /// Requires: at least one executor, all of one model; pages that not all have are not used.
  Engine(const EngineOptions& options, std::vector<std::unique_ptr<Executor>> executors,
         const Clock& clock, EngineMetrics metrics = {}, ExecutorFactory restart = nullptr,
         std::function<void(int)> on_worker_start = nullptr);
  /// One worker that is never restarted.
  Engine(const EngineOptions& options, std::unique_ptr<Executor> executor, const Clock& clock,
         EngineMetrics metrics = {});
  /// Ends what is open with UNAVAILABLE and joins the threads.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Opens a request; sets its id and cancel flag. Its prompt must follow by Ready or Fail.
  /// Errors: UNAVAILABLE: QUEUE_FULL (with retry advice), DRAINING, DEVICE_LOST.
  absl::StatusOr<RequestId> Submit(Request request);
  /// The flag that the request's media work polls; null if the request has ended.
  std::shared_ptr<const std::atomic<bool>> CancelFlag(RequestId id) const;
  void Ready(RequestId id, std::unique_ptr<PreparedPrompt> prompt);
  void Fail(RequestId id, absl::Status status);
  /// A patch source of the request has something new to say; never waits.
  void MediaChanged(RequestId id);
  /// A stop string was found: no more tokens are wanted. Idempotent.
  void Stop(RequestId id);
  /// Ends the request with CANCELLED unless it has ended. Idempotent; never waits.
  void Cancel(RequestId id);
  /// Lets the pages of a session go. The pin must be closed. Idempotent; never waits.
  void Unpin(SessionId session);
  /// Makes the engine look at the clock: for tests that move it by hand.
  void Tick();

  /// Refuses new requests, waits until the open ones have ended or `timeout` has passed, ends the
  /// rest with what they have; returns how many those were.
  int Drain(absl::Duration timeout);

  EngineSnapshot Snapshot() const;
  /// Requests that are open and not admitted, at this moment.
  int num_waiting() const { return open_.num_waiting(); }
  const ExecutorInfo& info() const { return info_; }

 private:
  void Loop();
  void Post(EngineMessage message);
  void HandleUnpins();
  void Report(WorkerEvent event);
  void PublishSnapshot();
  void MaybeUpdateGauges();

  const EngineOptions options_;
  const ExecutorInfo info_;
  const Clock& clock_;
  OpenRequests open_;
  BoundedQueue<EngineMessage> inbox_;
  std::atomic<uint64_t> next_id_{1};
  const bool restarts_;
  std::vector<std::unique_ptr<Worker>> workers_;

  mutable absl::Mutex snapshot_mutex_;
  EngineSnapshot snapshot_ ABSL_GUARDED_BY(snapshot_mutex_);
  // Known before anybody's end is; not OK while no worker serves.
  absl::Status failure_ ABSL_GUARDED_BY(snapshot_mutex_);
  int num_serving_ ABSL_GUARDED_BY(snapshot_mutex_) = 0;
  int num_restarting_ ABSL_GUARDED_BY(snapshot_mutex_) = 0;

  EngineCore core_;                                         // engine thread only
  absl::Duration gauges_time_ = -absl::InfiniteDuration();  // engine thread only

  absl::Mutex unpins_mutex_;
  std::vector<SessionId> unpins_ ABSL_GUARDED_BY(unpins_mutex_);  // not handled yet

  std::thread thread_;
};

}  // namespace videonsa
