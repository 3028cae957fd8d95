#include "server/response_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "server/proto_time.h"
#include "server/result_conversion.h"

namespace videonsa {
namespace {

constexpr int64_t kLogprobBytes = 16;  // of one candidate on the wire, about

int64_t BytesOf(const TokenChunk& chunk) {
  int64_t bytes = static_cast<int64_t>(chunk.text.size());
  for (const TokenLogprob& token : chunk.logprobs) {
    bytes += kLogprobBytes * static_cast<int64_t>(1 + token.alternatives.size());
  }
  return bytes;
}

absl::Status ReaderTooSlow(int64_t behind, int64_t limit) {
  return MakeError(absl::StatusCode::kResourceExhausted,
                   ErrorInfo{.reason = "READER_TOO_SLOW",
                             .metadata = {{"behind_bytes", absl::StrCat(behind)},
                                          {"limit", absl::StrCat(limit)}}},
                   absl::StrCat("the reader is ", behind, " bytes behind, limit ", limit));
}

}  // namespace

ResponseStream::ResponseStream(ServerCore& core, Question question, Writer* writer)
    : core_(core), question_(std::move(question)), writer_(writer) {}

void ResponseStream::Hold(std::vector<std::shared_ptr<void>> holds) {
  absl::MutexLock lock(&mutex_);
  for (std::shared_ptr<void>& hold : holds) question_.holds.push_back(std::move(hold));
}

void ResponseStream::SetTurn(std::shared_ptr<SessionTurn> turn) {
  absl::MutexLock lock(&mutex_);
  question_.turn.swap(turn);  // what was there dies after the lock
}

bool ResponseStream::ended() const {
  absl::MutexLock lock(&mutex_);
  return ended_;
}

void ResponseStream::SetRequest(Runtime& runtime, RequestId id) {
  std::function<void()> cancel;
  {
    absl::MutexLock lock(&mutex_);
    runtime_ = &runtime;
    id_ = id;
    if (ended_) cancel = CancelRequest();
  }
  if (cancel) cancel();
}

std::function<void()> ResponseStream::CancelRequest() {
  if (request_over_ || runtime_ == nullptr) return nullptr;
  return [runtime = runtime_, id = id_] { runtime->Cancel(id); };
}

void ResponseStream::OnAccepted(RequestId id, int ahead) {
  absl::MutexLock lock(&mutex_);
  accepted_.emplace();
  accepted_->set_ask_id(question_.ask_id);
  accepted_->set_queue_position(ahead);
  Pump();
}

void ResponseStream::OnProgress(const char* stage, int64_t done, int64_t total) {
  absl::MutexLock lock(&mutex_);
  progress_.emplace();
  progress_->set_stage(stage);
  progress_->set_done(done);
  progress_->set_total(total);
  Pump();
}

void ResponseStream::OnPrefill(const PromptTokens& prompt, int64_t cached_tokens,
                               absl::Duration took) {
  absl::MutexLock lock(&mutex_);
  prefill_.emplace();
  prefill_->set_cached_tokens(cached_tokens);
  *prefill_->mutable_prefill_time() = ToProto(took);
  Pump();
}

bool ResponseStream::OnChunk(TokenChunk chunk) {
  const absl::Duration now = core_.clock.Monotonic();
  absl::MutexLock lock(&mutex_);
  if (ended_ || writer_ == nullptr) return false;
  if (last_chunk_ > absl::ZeroDuration() && chunk.token_count > 0) {
    core_.requests.Gap((now - last_chunk_) / chunk.token_count);
  }
  last_chunk_ = now;
  delta_.mutable_text()->append(chunk.text);
  delta_.set_token_count(delta_.token_count() + chunk.token_count);
  for (const TokenLogprob& token : chunk.logprobs) *delta_.add_logprobs() = ToProto(token);
  delta_bytes_ += BytesOf(chunk);
  Pump();
  if (delta_bytes_ <= core_.options.stream_behind_bytes) return true;
  EndNow(ReaderTooSlow(delta_bytes_, core_.options.stream_behind_bytes));
  return false;
}

void ResponseStream::OnFinish(const absl::Status& status, GenerateResult result) {
  std::vector<std::shared_ptr<void>> holds;  // released after the lock
  std::shared_ptr<SessionTurn> turn;
  bool heard;
  {
    absl::MutexLock lock(&mutex_);
    turn.swap(question_.turn);
    heard = !ended_;
  }
  if (turn != nullptr) turn->Finished(heard ? status : absl::CancelledError(), result);
  absl::MutexLock lock(&mutex_);
  request_over_ = true;
  holds.swap(question_.holds);
  core_.requests.Ended(status, result, question_.priority);
  if (ended_) return;
  if (status.ok()) {
    final_ = ToProto(result, question_.report,
                     runtime_ != nullptr ? runtime_->model() : core_.runtime()->model());
    final_->set_ask_id(question_.ask_id);
  }
  end_ = status;
  Pump();
}

bool ResponseStream::NextEvent(v1::AskStreamResponse& event) {
  if (accepted_) {
    *event.mutable_accepted() = *std::exchange(accepted_, std::nullopt);
  } else if (progress_ && !prefill_) {
    *event.mutable_progress() = *std::exchange(progress_, std::nullopt);
  } else if (prefill_) {
    progress_.reset();  // older than the end of prefill
    *event.mutable_prefill() = *std::exchange(prefill_, std::nullopt);
  } else if (end_ ? delta_.token_count() > 0 || !delta_.text().empty()
                  : delta_.token_count() >= question_.min_tokens &&
                        (!delta_.text().empty() || delta_.logprobs_size() > 0)) {
    event.mutable_delta()->Swap(&delta_);
    delta_.Clear();
    delta_bytes_ = 0;
  } else if (final_) {
    *event.mutable_final() = *std::exchange(final_, std::nullopt);
  } else {
    return false;
  }
  return true;
}

void ResponseStream::Pump() {
  if (writer_ == nullptr || in_flight_ || ended_) return;
  v1::AskStreamResponse event;
  if (NextEvent(event)) {
    in_flight_ = true;
    write_begin_ = core_.clock.Monotonic();
    writer_->Write(event);
  } else if (end_) {
    EndNow(*end_);
  }
}

void ResponseStream::EndNow(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  if (writer_ != nullptr) writer_->End(status);
}

void ResponseStream::OnWritten(bool ok) {
  absl::MutexLock lock(&mutex_);
  in_flight_ = false;
  if (ok) Pump();  // else the call is over, and OnCancel ends it
}

void ResponseStream::Cancel(const absl::Status& status) {
  std::function<void()> cancel;
  {
    absl::MutexLock lock(&mutex_);
    EndNow(status);
    cancel = CancelRequest();
  }
  if (cancel) cancel();
}

void ResponseStream::Detach() {
  absl::MutexLock lock(&mutex_);
  writer_ = nullptr;
}

void ResponseStream::Check(absl::Duration now) {
  std::function<void()> cancel;
  {
    absl::MutexLock lock(&mutex_);
    if (writer_ == nullptr || !in_flight_ || now - write_begin_ < core_.options.stream_stall) {
      return;
    }
    writer_->Cut();
    cancel = CancelRequest();
  }
  if (cancel) cancel();
}

}  // namespace videonsa
