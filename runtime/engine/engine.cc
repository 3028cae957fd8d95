#include "runtime/engine/engine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

// Messages that do not belong to a request: worker events, ticks, the end of a drain.
constexpr int kInboxSlack = 256;
// The engine looks at the clock at least this often while somebody has a deadline, because the
// monotonic clock it is given need not be the one that waits.
constexpr absl::Duration kMaxWait = absl::Milliseconds(20);
// How often gauges are set while work goes on; always when the last request has ended.
constexpr absl::Duration kGaugePeriod = absl::Milliseconds(250);

absl::Status QueueFull(int waiting, const EngineSnapshot& snapshot) {
  const double backlog = std::min(std::max(snapshot.backlog_seconds / 2, 0.5), 30.0);
  return MakeError(absl::StatusCode::kUnavailable,
                   ErrorInfo{.reason = "QUEUE_FULL",
                             .metadata = {{"waiting", absl::StrCat(waiting)},
                                          {"running", absl::StrCat(snapshot.running)}},
                             .retry_after = absl::Seconds(backlog)},
                   absl::StrCat("the queue is full: ", waiting, " requests wait"));
}

absl::Status Draining() {
  return MakeError(absl::StatusCode::kUnavailable,
                   ErrorInfo{.reason = "DRAINING", .retry_after = absl::Seconds(1)},
                   "the server is draining");
}

EngineOptions WithWorkers(EngineOptions options, size_t num_workers, bool restarts) {
  options.num_workers = static_cast<int>(num_workers);
  options.restarts = restarts;
  return options;
}

std::vector<std::unique_ptr<Executor>> OneExecutor(std::unique_ptr<Executor> executor) {
  std::vector<std::unique_ptr<Executor>> executors;
  executors.push_back(std::move(executor));
  return executors;
}

}  // namespace

Engine::Engine(const EngineOptions& options, std::unique_ptr<Executor> executor, const Clock& clock,
               EngineMetrics metrics)
    : Engine(options, OneExecutor(std::move(executor)), clock, std::move(metrics)) {}

Engine::Engine(const EngineOptions& options, std::vector<std::unique_ptr<Executor>> executors,
               const Clock& clock, EngineMetrics metrics, ExecutorFactory restart,
               std::function<void(int)> on_worker_start)
    : options_(WithWorkers(options, executors.size(), restart != nullptr)),
      info_(CommonInfo(executors)),
      clock_(clock),
      open_(options.max_running, options.max_waiting),
      inbox_(OpenRequests::kMessagesPerRequest * open_.capacity() * 2 + kInboxSlack),
      restarts_(restart != nullptr),
      core_(options_, info_, clock_, &open_, std::move(metrics)) {
  core_.UpdateGauges();
  PublishSnapshot();
  {
    absl::MutexLock lock(&snapshot_mutex_);
    num_serving_ = options_.num_workers;
  }
  for (int i = 0; i < options_.num_workers; ++i) {
    workers_.push_back(
        std::make_unique<Worker>(std::move(executors[i]),
                                 Worker::Options{.index = i,
                                                 .depth = options_.plan_depth,
                                                 .restart = restart,
                                                 .on_start = on_worker_start},
                                 [this](WorkerEvent event) { Report(std::move(event)); }));
  }
  thread_ = std::thread([this] { Loop(); });
}

Engine::~Engine() {
  Drain(absl::ZeroDuration());
  inbox_.Close();
  thread_.join();
  workers_.clear();
}

void Engine::Post(EngineMessage message) {
  // The door bounds what can be under way (OpenRequests), so a full inbox is a leak of ours.
  VNSA_CHECK(inbox_.TryPush(std::move(message)) || inbox_.closed()) << "I12: inbox overflow";
}

absl::StatusOr<RequestId> Engine::Submit(Request request) {
  request.id = RequestId{next_id_.fetch_add(1, std::memory_order_relaxed)};
  request.cancelled = std::make_shared<std::atomic<bool>>(false);
  const EngineSnapshot snapshot = Snapshot();
  if (!snapshot.failure.ok()) {
    return MakeError(absl::StatusCode::kUnavailable,
                     ErrorInfo{.reason = "DEVICE_LOST", .retry_after = absl::Seconds(5)},
                     "the worker lost its device");
  }
  const RequestId id = request.id;
  int ahead = 0;
  switch (open_.TryOpen(id, request.cancelled, &ahead)) {
    case OpenRequests::Refusal::kQueueFull:
      return QueueFull(ahead, snapshot);
    case OpenRequests::Refusal::kClosed:
      return Draining();
    case OpenRequests::Refusal::kNone:
      break;
  }
  Post(SubmitMessage{std::move(request), ahead});
  return id;
}

std::shared_ptr<const std::atomic<bool>> Engine::CancelFlag(RequestId id) const {
  return open_.CancelFlag(id);
}

void Engine::Ready(RequestId id, std::unique_ptr<PreparedPrompt> prompt) {
  Post(ReadyMessage{id, std::move(prompt)});
}

void Engine::Fail(RequestId id, absl::Status status) { Post(FailMessage{id, std::move(status)}); }

void Engine::MediaChanged(RequestId id) {
  if (open_.MarkMedia(id)) Post(MediaMessage{id});
}

void Engine::Stop(RequestId id) {
  if (open_.MarkStopped(id)) Post(StopMessage{id});
}

void Engine::Cancel(RequestId id) {
  if (open_.MarkCancelled(id)) Post(CancelMessage{id});
}

void Engine::Unpin(SessionId session) {
  {
    absl::MutexLock lock(&unpins_mutex_);
    unpins_.push_back(session);
  }
  // No message of their own: nothing bounds how many sessions come and go (I12).
  Tick();
}

void Engine::HandleUnpins() {
  std::vector<SessionId> sessions;
  {
    absl::MutexLock lock(&unpins_mutex_);
    sessions.swap(unpins_);
  }
  for (const SessionId session : sessions) core_.Handle(UnpinMessage{session});
}

void Engine::Tick() { inbox_.TryPush(TickMessage{}); }

int Engine::Drain(absl::Duration timeout) {
  open_.CloseDoor();
  const int left = open_.AwaitEmpty(timeout);
  if (left == 0) return 0;
  Post(EndAllMessage{});
  open_.AwaitEmpty(absl::InfiniteDuration());
  return left;
}

void Engine::Report(WorkerEvent event) {
  if (const auto* failed = std::get_if<WorkerFailed>(&event)) {
    absl::MutexLock lock(&snapshot_mutex_);
    num_restarting_ += restarts_;
    if (--num_serving_ == 0) failure_ = failed->status;
  } else if (const auto* restarted = std::get_if<WorkerRestarted>(&event)) {
    absl::MutexLock lock(&snapshot_mutex_);
    --num_restarting_;
    if (restarted->status.ok()) {
      ++num_serving_;
      failure_ = absl::OkStatus();
    }
  }
  std::visit([this](auto&& e) { Post(std::move(e)); }, std::move(event));
}

EngineSnapshot Engine::Snapshot() const {
  absl::MutexLock lock(&snapshot_mutex_);
  EngineSnapshot snapshot = snapshot_;
  snapshot.failure = failure_;
  snapshot.lost = num_serving_ == 0 && num_restarting_ == 0;
  snapshot.workers_serving = num_serving_;
  return snapshot;
}

void Engine::PublishSnapshot() {
  EngineSnapshot snapshot = core_.Snapshot();
  absl::MutexLock lock(&snapshot_mutex_);
  snapshot_ = std::move(snapshot);
}

void Engine::MaybeUpdateGauges() {
  const absl::Duration now = clock_.Monotonic();
  if (core_.num_open() > 0 && now - gauges_time_ < kGaugePeriod) return;
  gauges_time_ = now;
  core_.UpdateGauges();
}

void Engine::Loop() {
  while (true) {
    const absl::Duration left = core_.NextDeadline() - clock_.Monotonic();
    const absl::Time until = left == absl::InfiniteDuration()
                                 ? absl::InfiniteFuture()
                                 : absl::Now() + std::clamp(left, absl::ZeroDuration(), kMaxWait);
    std::optional<EngineMessage> message = inbox_.PopBefore(until);
    if (!message && inbox_.closed() && inbox_.size() == 0) break;
    if (!message) message = EngineMessage(TickMessage{});
    core_.Handle(*std::move(message));
    while (std::optional<EngineMessage> more = inbox_.TryPop()) core_.Handle(*std::move(more));
    HandleUnpins();
    while (std::optional<WorkerJob> job = core_.NextJob()) {
      const int worker = job->worker;
      workers_[worker]->Submit(*std::move(job));
    }
    PublishSnapshot();
    MaybeUpdateGauges();
  }
  for (const auto& worker : workers_) worker->Close();
}

}  // namespace videonsa
