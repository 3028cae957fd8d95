#include "runtime/serving/answer_writer.h"

#include <utility>

#include "runtime/base/check.h"

namespace videonsa {

DeliveryStage::DeliveryStage(int num_threads, int max_open)
    : max_open_(max_open), queue_(static_cast<size_t>(max_open)) {
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Loop(); });
}

DeliveryStage::~DeliveryStage() {
  queue_.Close();
  for (std::thread& thread : threads_) thread.join();
}

bool DeliveryStage::TryOpen() {
  absl::MutexLock lock(&mutex_);
  if (open_ >= max_open_) return false;
  ++open_;
  return true;
}

void DeliveryStage::Close() {
  absl::MutexLock lock(&mutex_);
  --open_;
  VNSA_CHECK_GE(open_, 0) << "I13: more answers closed than opened";
}

void DeliveryStage::AwaitEmpty() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &DeliveryStage::Empty));
}

void DeliveryStage::Enqueue(std::shared_ptr<AnswerWriter> writer) {
  VNSA_CHECK(queue_.TryPush(std::move(writer))) << "I13: delivery queue overflow";
}

void DeliveryStage::Loop() {
  while (std::optional<std::shared_ptr<AnswerWriter>> writer = queue_.Pop()) (*writer)->Deliver();
}

AnswerWriter::AnswerWriter(std::shared_ptr<ResponseSink> sink, const Tokenizer& tokenizer,
                           StopMatcher stops, DeliveryStage* stage, AnswerControl* control)
    : stage_(stage),
      control_(control),
      sink_(std::move(sink)),
      detokenizer_(tokenizer),
      stops_(std::move(stops)) {}

void AnswerWriter::Accepted(RequestId id, int ahead) { Post(AcceptedEvent{id, ahead}); }

void AnswerWriter::Progress(const char* stage, int64_t done, int64_t total) {
  Post(ProgressEvent{stage, done, total});
}

void AnswerWriter::Prefilled(const PromptTokens& prompt, int64_t cached_tokens,
                             absl::Duration took) {
  Post(PrefilledEvent{prompt, cached_tokens, took});
}

void AnswerWriter::Token(const SampledToken& token) { Post(token); }

void AnswerWriter::Finish(const absl::Status& status, GenerateResult result) {
  auto event = std::make_unique<FinishEvent>();
  event->status = status;
  event->result = std::move(result);
  Post(std::move(event));
}

void AnswerWriter::Post(Event event) {
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) {
      // Media threads may still report progress of a request that the engine has ended.
      VNSA_CHECK(std::holds_alternative<ProgressEvent>(event)) << "I11: event after the end";
      return;
    }
    closed_ = std::holds_alternative<std::unique_ptr<FinishEvent>>(event);
    const auto* progress = std::get_if<ProgressEvent>(&event);
    auto* last = mailbox_.empty() ? nullptr : std::get_if<ProgressEvent>(&mailbox_.back());
    if (progress != nullptr && last != nullptr && last->stage == progress->stage) {
      *last = *progress;
    } else {
      mailbox_.push_back(std::move(event));
    }
    if (std::exchange(queued_, true)) return;
  }
  stage_->Enqueue(shared_from_this());
}

void AnswerWriter::Deliver() {
  std::vector<Event> events;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mailbox_.empty()) {
        queued_ = false;
        return;
      }
      events.swap(mailbox_);
    }
    for (Event& event : events) {
      std::visit([this](auto&& e) { On(std::move(e)); }, std::move(event));
    }
    events.clear();
  }
}

void AnswerWriter::On(AcceptedEvent event) {
  id_ = event.id;
  sink_->OnAccepted(event.id, event.ahead);
}

void AnswerWriter::On(ProgressEvent event) {
  sink_->OnProgress(event.stage, event.done, event.total);
}

void AnswerWriter::On(PrefilledEvent event) {
  sink_->OnPrefill(event.prompt, event.cached_tokens, event.took);
}

void AnswerWriter::On(SampledToken event) {
  if (stopped_) return;  // sampled before the engine heard of the stop string
  ++tokens_;
  ++pending_.token_count;
  if (event.logprob.token_id != 0 || event.logprob.logprob != 0 ||
      !event.logprob.alternatives.empty()) {
    pending_.logprobs.push_back(std::move(event.logprob));
  }
  if (event.is_stop_token) return;  // its text is not part of the answer; Finish follows
  std::string text = stops_.Append(detokenizer_.Append(event.token_id));
  if (stops_.matched()) {
    NoteMatch();
    control_->Stop(id_);
  }
  if (!text.empty()) Emit(std::move(text));
}

void AnswerWriter::NoteMatch() {
  stopped_ = true;
  tokens_at_stop_ = tokens_;
}

void AnswerWriter::Emit(std::string text) {
  TokenChunk chunk = std::exchange(pending_, {});
  text_ += text;
  chunk.text = std::move(text);
  if (unread_ || sink_->OnChunk(std::move(chunk))) return;
  unread_ = true;
  control_->Cancel(id_);
}

void AnswerWriter::On(std::unique_ptr<FinishEvent> event) {
  std::string tail;
  if (!stopped_) {
    tail = stops_.Append(detokenizer_.Finish());
    if (stops_.matched()) {
      NoteMatch();
    } else {
      tail += stops_.Finish();
    }
  }
  if (event->status.ok() && (!tail.empty() || pending_.token_count > 0)) Emit(std::move(tail));
  if (stopped_) {
    event->result.finish_reason = FinishReason::kStop;
    event->result.matched_stop = *stops_.matched();
    event->result.usage.output_tokens = tokens_at_stop_;
  }
  event->result.answer_text = std::move(text_);
  if (stopped_) event->result.answer_ids.clear();  // their text goes on behind the stop string
  sink_->OnFinish(event->status, std::move(event->result));
  sink_.reset();
  stage_->Close();
}

}  // namespace videonsa
