#include "server/ask_many_run.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "server/metered_sink.h"
#include "server/proto_time.h"
#include "server/result_conversion.h"

namespace videonsa {
namespace {

v1::QuestionError ErrorOf(const absl::Status& status) {
  v1::QuestionError error;
  error.set_code(static_cast<int>(status.code()));
  error.set_message(std::string(status.message()));
  if (const std::optional<ErrorInfo> info = GetErrorInfo(status)) {
    error.set_reason(info->reason);
    if (info->retry_after) *error.mutable_retry_delay() = ToProto(*info->retry_after);
  } else {
    // What is no error of ours may come from a library.
    error.set_reason(absl::StatusCodeToString(status.code()));
    if (status.code() == absl::StatusCode::kInternal) error.set_message("internal error");
  }
  return error;
}

}  // namespace

// Collects one answer.
class AskManyRun::Sink : public ResponseSink {
 public:
  Sink(std::shared_ptr<AskManyRun> run, int index) : run_(std::move(run)), index_(index) {}

  void OnAccepted(RequestId, int) override {}
  void OnProgress(const char*, int64_t, int64_t) override {}
  void OnPrefill(const PromptTokens&, int64_t, absl::Duration) override { run_->Prefilled(index_); }
  bool OnChunk(TokenChunk chunk) override {
    result_.mutable_text()->append(chunk.text);
    for (const TokenLogprob& token : chunk.logprobs) *result_.add_logprobs() = ToProto(token);
    return true;
  }
  void OnFinish(const absl::Status& status, GenerateResult result) override {
    const GenerateRequest& request = run_->first_;
    run_->core_.requests.Ended(status, result, request.priority);
    v1::AskResult out;
    if (status.ok()) {
      out = ToProto(result, request.report, run_->runtime_->model());
      out.mutable_text()->swap(*result_.mutable_text());
      out.mutable_logprobs()->Swap(result_.mutable_logprobs());
      out.set_ask_id(absl::StrCat(run_->ask_id_, ".", index_));
    }
    run_->Answered(index_, status, std::move(out));
  }

 private:
  const std::shared_ptr<AskManyRun> run_;
  const int index_;
  v1::AskResult result_;  // text and log-probabilities so far
};

AskManyRun::AskManyRun(ServerCore& core, std::string ask_id, std::vector<std::string> questions,
                       Writer* writer)
    : core_(core),
      ask_id_(std::move(ask_id)),
      questions_(std::move(questions)),
      writer_(writer),
      ids_(questions_.size()),
      over_(questions_.size(), false) {}

AskManyRun::~AskManyRun() {
  if (pin_ == nullptr) return;
  pin_->closed.store(true, std::memory_order_release);
  runtime_->Unpin(*pin_);
}

void AskManyRun::Start(PreparedQuestion shared) {
  runtime_ = shared.runtime;
  first_ = std::move(shared.parsed.request);
  turn_ = std::move(shared.turn);
  trace_ = std::move(shared.trace);
  holds_ = std::move(shared.parsed.holds);
  pin_ = core_.sessions.MakePin();
  Ask(0);
}

void AskManyRun::Ask(int index) {
  GenerateRequest request = first_;
  std::get<TextPart>(request.turns.back().parts.back()).text = questions_[index];
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_ || over_[index]) return;
    if (index == lead_) {
      request.pin = pin_;
    } else {
      request.expects_reuse = true;
    }
  }
  auto sink = std::make_shared<MeteredSink>(core_, request.tenant, trace_,
                                            std::make_shared<Sink>(shared_from_this(), index));
  // The runtime may answer before Submit returns.
  const absl::StatusOr<RequestId> id = runtime_->Submit(std::move(request), std::move(sink));
  if (!id.ok()) {
    core_.requests.Refused(id.status());
    return Answered(index, id.status(), {});
  }
  bool cancel;
  {
    absl::MutexLock lock(&mutex_);
    ids_[index] = *id;
    cancel = cancelled_ && !over_[index];
  }
  if (cancel) runtime_->Cancel(*id);
}

void AskManyRun::Prefilled(int index) {
  {
    absl::MutexLock lock(&mutex_);
    if (index != lead_) return;
  }
  AskRest();
}

void AskManyRun::AskRest() {
  int after;
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(all_asked_, true)) return;
    after = lead_;
  }
  for (int i = after + 1; i < static_cast<int>(questions_.size()); ++i) Ask(i);
}

void AskManyRun::Answered(int index, const absl::Status& status, v1::AskResult result) {
  int next = -1;
  std::shared_ptr<SessionTurn> turn;
  {
    absl::MutexLock lock(&mutex_);
    VNSA_CHECK(!over_[index]) << "question " << index << " ends twice";
    over_[index] = true;
    ++num_over_;
    v1::AskManyResponse& answer = pending_.emplace_back();
    answer.set_question_index(index);
    if (status.ok()) {
      answer.mutable_result()->Swap(&result);
    } else {
      *answer.mutable_error() = ErrorOf(status);
    }
    const int last = static_cast<int>(questions_.size()) - 1;
    // A lead that failed before its prompt was prefilled leaves that to the next.
    if (!all_asked_ && index == lead_ && lead_ < last) next = ++lead_;
    if (num_over_ == last + 1) turn.swap(turn_);
  }
  turn.reset();  // the session is free before its caller hears the last answer
  if (next >= 0) Ask(next);
  absl::MutexLock lock(&mutex_);
  Pump();
}

void AskManyRun::Pump() {
  if (writer_ == nullptr || in_flight_ || ended_) return;
  if (!pending_.empty()) {
    in_flight_ = true;
    write_begin_ = core_.clock.Monotonic();
    writer_->Write(pending_.front());
    pending_.pop_front();
  } else if (num_over_ == static_cast<int>(questions_.size())) {
    ended_ = true;
    writer_->End(absl::OkStatus());
  }
}

std::vector<RequestId> AskManyRun::Open() const {
  std::vector<RequestId> open;
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (ids_[i].value != 0 && !over_[i]) open.push_back(ids_[i]);
  }
  return open;
}

void AskManyRun::Cancel(const absl::Status& status) {
  std::vector<RequestId> open;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (!ended_ && writer_ != nullptr) writer_->End(status);
    ended_ = true;
    open = Open();
  }
  for (const RequestId id : open) runtime_->Cancel(id);
}

bool AskManyRun::ended() const {
  absl::MutexLock lock(&mutex_);
  return ended_;
}

void AskManyRun::OnWritten(bool ok) {
  absl::MutexLock lock(&mutex_);
  in_flight_ = false;
  if (ok) Pump();  // else the call is over, and OnCancel ends it
}

void AskManyRun::Detach() {
  absl::MutexLock lock(&mutex_);
  writer_ = nullptr;
}

void AskManyRun::Check(absl::Duration now) {
  absl::MutexLock lock(&mutex_);
  if (writer_ == nullptr || !in_flight_ || now - write_begin_ < core_.options.stream_stall) return;
  writer_->Cut();  // OnCancel follows
}

}  // namespace videonsa
