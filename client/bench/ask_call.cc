#include "client/bench/ask_call.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/error.h"

namespace videonsa::client {

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

AskCall::AskCall(Setup setup, Sample sample, std::function<void(Sample)> on_end)
    : setup_(std::move(setup)), on_end_(std::move(on_end)), sample_(std::move(sample)) {
  context_.set_deadline(absl::ToChronoTime(setup_.deadline));
  if (!setup_.bearer_token.empty()) {
    context_.AddMetadata("authorization", absl::StrCat("Bearer ", setup_.bearer_token));
  }
}

void AskCall::Start(proto::VideoQaService::Stub& stub) {
  self_ = shared_from_this();
  {
    absl::MutexLock lock(&mutex_);
    sample_.sent_s = Now();
    if (sample_.scheduled_s < 0) sample_.scheduled_s = sample_.sent_s;
  }
  stub.async()->AskStream(&context_, &setup_.request, this);
  // Reads are started from the timer's thread too, outside of a reaction.
  AddHold();
  StartRead(&event_);
  StartCall();
}

void AskCall::Cancel() {
  absl::MutexLock lock(&mutex_);
  if (done_) return;
  sample_.cancelled_by_us = true;
  context_.TryCancel();
}

void AskCall::Take(const proto::AskStreamResponse& event, double now) {
  if (absl::Status status = assembler_.Take(event); !status.ok()) {
    broken_ = status;
    context_.TryCancel();
    return;
  }
  if (event.has_final()) {
    absl::MutexLock lock(&mutex_);
    sample_.finished = true;
    return;
  }
  if (!event.has_delta()) return;
  absl::MutexLock lock(&mutex_);
  const int count = std::max(event.delta().token_count(), 1);
  sample_.tokens += count;
  if (sample_.first_text_s < 0) {
    sample_.first_text_s = now;
  } else {
    const float gap = static_cast<float>((now - sample_.last_text_s) / count);
    sample_.gaps_s.insert(sample_.gaps_s.end(), count, gap);
  }
  sample_.last_text_s = now;
}

void AskCall::OnReadDone(bool ok) {
  if (!ok) {
    RemoveHold();
    return;
  }
  Take(event_, Now());
  if (setup_.read_delay > absl::ZeroDuration()) {
    setup_.timer->After(setup_.read_delay, [this] { StartRead(&event_); });
  } else {
    StartRead(&event_);
  }
}

void AskCall::OnDone(const grpc::Status& status) {
  const double now = Now();
  const absl::Status ended = broken_.ok() ? FromGrpc(status) : broken_;
  Sample sample;
  {
    absl::MutexLock lock(&mutex_);
    done_ = true;
    sample = std::move(sample_);
  }
  sample.end_s = now;
  sample.code = CodeName(ended.code());
  sample.reason = DetailsOf(ended).reason;
  sample.cancelled_by_us = sample.cancelled_by_us && !ended.ok();
  sample.answer = assembler_.text();
  if (sample.finished) {
    absl::StatusOr<proto::AskResult> result = assembler_.Finish();
    if (result.ok()) sample.result = *std::move(result);
    if (sample.answer.empty()) sample.answer = sample.result.text();
    sample.result.clear_text();
    sample.result.clear_logprobs();
    sample.result.mutable_attention()->clear_blocks();
    sample.result.mutable_attention()->clear_layers();
  }
  on_end_(std::move(sample));
  const std::shared_ptr<AskCall> last = std::move(self_);  // may delete this at the end of scope
}

}  // namespace videonsa::client
