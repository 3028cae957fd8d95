#include "server/clip_prober.h"

#include "runtime/telemetry/log.h"
#include "server/result_conversion.h"

namespace videonsa {
namespace {

constexpr int kThreads = 2;
constexpr int kMaxAttempts = 3;  // of a probe whose decoder died or was busy

bool MaySucceedLater(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded;
}

}  // namespace

ClipProber::ClipProber(ClipStore& clips, Runtime& runtime) : clips_(clips), runtime_(runtime) {
  for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Run(); });
  clips_.SetProber([this](const std::string& id) { Add(Task{id}); });
}

ClipProber::~ClipProber() {
  clips_.SetProber(nullptr);
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void ClipProber::Add(Task task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

void ClipProber::Run() {
  while (true) {
    Task task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &ClipProber::HasWorkOrStops));
      if (stopping_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    Probe(std::move(task));
  }
}

void ClipProber::Probe(Task task) {
  const std::optional<MediaSource> source = clips_.ProbeSource(task.id);
  if (!source) return;  // deleted meanwhile
  const absl::StatusOr<MediaFacts> facts = runtime_.Probe(*source);
  if (!facts.ok() && MaySucceedLater(facts.status()) && ++task.attempts < kMaxAttempts) {
    return Add(std::move(task));
  }
  Log(LogLevel::kInfo, "clip probed",
      {{"clip", task.id}, {"code", absl::StatusCodeToString(facts.status().code())}});
  if (facts.ok()) {
    clips_.SetProbed(task.id, ToProto(*facts));
  } else {
    clips_.SetProbed(task.id, facts.status());
  }
}

}  // namespace videonsa
