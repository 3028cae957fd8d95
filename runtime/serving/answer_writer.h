#pragma once

#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runtime/api/generate_result.h"
#include "runtime/base/bounded_queue.h"
#include "runtime/engine/request.h"
#include "runtime/text/incremental_detokenizer.h"
#include "runtime/text/stop_matcher.h"
#include "runtime/text/tokenizer.h"

namespace videonsa {

class AnswerWriter;

/// What an answer may ask of the engine while it is being written.
class AnswerControl {
 public:
  virtual ~AnswerControl() = default;
  /// A stop string was found; no more tokens are wanted.
  virtual void Stop(RequestId id) = 0;
  /// Nobody reads any more.
  virtual void Cancel(RequestId id) = 0;
};

/// Threads that turn tokens into text and call response sinks, so that no step waits for either.
///
/// Every open answer stands in the queue at most once, and at most `max_open` answers are open, so
/// the queue never overflows and pushing never waits.
class DeliveryStage {
 public:
  DeliveryStage(int num_threads, int max_open);
  /// Closes and joins. Requires: no answer is open.
  ~DeliveryStage();

  /// Counts an answer in; false if max_open are.
  bool TryOpen();
  /// Counts it out: its sink has heard OnFinish, or it was never accepted.
  void Close();
  /// Waits until none is open.
  void AwaitEmpty();
  void Enqueue(std::shared_ptr<AnswerWriter> writer);

 private:
  void Loop();
  bool Empty() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return open_ == 0; }

  const int max_open_;
  BoundedQueue<std::shared_ptr<AnswerWriter>> queue_;
  absl::Mutex mutex_;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::thread> threads_;
};

/// One answer on its way from tokens to a ResponseSink: a mailbox that engine and media threads
/// write to and a delivery thread empties.
///
/// Threads: AnswerStream's methods from any thread; Deliver from one delivery thread at a time.
/// Lifetime: control, stage and tokenizer outlive it; the sink is let go after OnFinish.
class AnswerWriter : public AnswerStream, public std::enable_shared_from_this<AnswerWriter> {
 public:
  AnswerWriter(std::shared_ptr<ResponseSink> sink, const Tokenizer& tokenizer, StopMatcher stops,
               DeliveryStage* stage, AnswerControl* control);

  void Accepted(RequestId id, int ahead) override;
  void Progress(const char* stage, int64_t done, int64_t total) override;
  void Prefilled(const PromptTokens& prompt, int64_t cached_tokens, absl::Duration took) override;
  void Token(const SampledToken& token) override;
  void Finish(const absl::Status& status, GenerateResult result) override;

  /// Hands everything in the mailbox to the sink.
  void Deliver();

 private:
  struct AcceptedEvent {
    RequestId id;
    int ahead = 0;
  };
  struct ProgressEvent {
    const char* stage = "";
    int64_t done = 0, total = 0;
  };
  struct PrefilledEvent {
    PromptTokens prompt;
    int64_t cached_tokens = 0;
    absl::Duration took;
  };
  struct FinishEvent {
    absl::Status status;
    GenerateResult result;
  };
  using Event = std::variant<AcceptedEvent, ProgressEvent, PrefilledEvent, SampledToken,
                             std::unique_ptr<FinishEvent>>;

  void Post(Event event);
  void On(AcceptedEvent event);
  void On(ProgressEvent event);
  void On(PrefilledEvent event);
  void On(SampledToken event);
  void On(std::unique_ptr<FinishEvent> event);
  void Emit(std::string text);
  void NoteMatch();

  DeliveryStage* const stage_;
  AnswerControl* const control_;

  absl::Mutex mutex_;
  std::vector<Event> mailbox_ ABSL_GUARDED_BY(mutex_);
  bool queued_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was posted

  // Delivery thread only.
  std::shared_ptr<ResponseSink> sink_;
  IncrementalDetokenizer detokenizer_;
  std::string text_;  // of the answer so far
  StopMatcher stops_;
  RequestId id_;
  TokenChunk pending_;  // tokens whose text is not complete yet
  int tokens_ = 0;
  int tokens_at_stop_ = 0;  // set once a stop string has matched
  bool stopped_ = false;
  bool unread_ = false;  // the sink refused a chunk
};

}  // namespace videonsa
