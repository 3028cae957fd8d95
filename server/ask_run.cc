#include "server/ask_run.h"

#include <algorithm>
#include <utility>

#include "server/metered_sink.h"
#include "server/result_conversion.h"

namespace videonsa {

void AskRun::SetDone(Done done) {
  absl::MutexLock lock(&mutex_);
  done_ = std::move(done);
}

bool AskRun::abandoned() const {
  absl::MutexLock lock(&mutex_);
  return abandoned_;
}

void AskRun::Submit(Runtime& runtime, GenerateRequest request, Question question,
                    std::shared_ptr<AskRun> self) {
  auto sink = std::make_shared<MeteredSink>(core_, request.tenant, std::move(question.trace),
                                            std::move(self));
  {
    absl::MutexLock lock(&mutex_);
    question_ = std::move(question);
  }
  const absl::StatusOr<RequestId> id = runtime.Submit(std::move(request), std::move(sink));
  if (!id.ok()) {
    core_.requests.Refused(id.status());
    std::shared_ptr<SessionTurn> turn;  // gives the session back
    {
      absl::MutexLock lock(&mutex_);
      turn.swap(question_.turn);
    }
    turn.reset();
    return End(id.status());
  }
  bool cancel;
  {
    absl::MutexLock lock(&mutex_);
    runtime_ = &runtime;
    id_ = *id;
    cancel = abandoned_ && !over_;
  }
  if (cancel) runtime.Cancel(*id);
}

void AskRun::Join(Waiter* waiter) {
  absl::MutexLock lock(&mutex_);
  if (over_) {
    waiter->Deliver(status_, status_.ok() ? &response_ : nullptr);
  } else {
    waiters_.push_back(waiter);
  }
}

bool AskRun::Leave(Waiter* waiter) {
  Runtime* runtime = nullptr;
  RequestId id;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = std::find(waiters_.begin(), waiters_.end(), waiter);
    if (found == waiters_.end()) return false;
    waiters_.erase(found);
    abandoned_ = waiters_.empty();
    if (abandoned_ && !over_) runtime = runtime_;
    id = id_;
  }
  if (runtime != nullptr) runtime->Cancel(id);
  return true;
}

bool AskRun::OnChunk(TokenChunk chunk) {
  absl::MutexLock lock(&mutex_);
  v1::AskResult& result = *response_.mutable_result();
  result.mutable_text()->append(chunk.text);
  for (const TokenLogprob& token : chunk.logprobs) *result.add_logprobs() = ToProto(token);
  return !abandoned_;
}

void AskRun::OnFinish(const absl::Status& status, GenerateResult result) {
  std::vector<std::shared_ptr<void>> holds;  // released after the lock
  std::shared_ptr<SessionTurn> turn;
  {
    absl::MutexLock lock(&mutex_);
    holds.swap(question_.holds);
    turn.swap(question_.turn);
    core_.requests.Ended(status, result, question_.priority);
    if (status.ok()) {
      v1::AskResult report = ToProto(result, question_.report, core_.runtime()->model());
      report.set_ask_id(ask_id_);
      report.mutable_text()->swap(*response_.mutable_result()->mutable_text());
      report.mutable_logprobs()->Swap(response_.mutable_result()->mutable_logprobs());
      response_.mutable_result()->Swap(&report);
    }
  }
  if (turn != nullptr) turn->Finished(status, result);
  End(status);
}

void AskRun::End(const absl::Status& status) {
  Done done;
  int64_t bytes = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (over_) return;
    over_ = true;
    status_ = status;
    for (Waiter* const waiter : waiters_) {
      waiter->Deliver(status, status.ok() ? &response_ : nullptr);
    }
    waiters_.clear();
    done = std::exchange(done_, nullptr);
    bytes = static_cast<int64_t>(response_.ByteSizeLong());
  }
  if (done) done(status, bytes);
}

}  // namespace videonsa
