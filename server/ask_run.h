#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runtime/api/generate_result.h"
#include "runtime/serving/runtime.h"
#include "server/server_core.h"
#include "server/session_store.h"
#include "server/trace/question_trace.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

/// One answer that is collected as a whole, for one caller or for several that sent the same
/// request_id. When the last caller leaves before the end, the request is cancelled.
///
/// Threads: any. Lifetime: shared by runtime, calls and the replay store.
class AskRun : public ResponseSink {
 public:
  /// A call that waits for the answer.
  class Waiter {
   public:
    virtual ~Waiter() = default;
    /// Called once, unless the waiter left before; `response` is null on error. Must not call back.
    virtual void Deliver(const absl::Status& status, const v1::AskResponse* response) = 0;
  };

  struct Question {
    ReportParams report;
    Priority priority = Priority::kStandard;
    QuestionTrace trace;
    std::vector<std::shared_ptr<void>> holds;  ///< released when the request ends
    std::shared_ptr<SessionTurn> turn;         ///< told how it ended before anybody else; or null
  };
  /// Told once how it ended and how many bytes the answer has.
  using Done = std::function<void(const absl::Status& status, int64_t bytes)>;

  AskRun(ServerCore& core, std::string ask_id) : core_(core), ask_id_(std::move(ask_id)) {}

  const std::string& ask_id() const { return ask_id_; }

  /// Submits the request. A refusal is delivered to the waiters.
  void Submit(Runtime& runtime, GenerateRequest request, Question question,
              std::shared_ptr<AskRun> self);
  /// Ends the run before it was submitted.
  void Refuse(const absl::Status& status) { End(status); }
  /// Whether the last caller has left.
  bool abandoned() const;
  /// Calls `done` at the end. Requires: called before Submit.
  void SetDone(Done done);

  /// Delivers the answer to `waiter` when there is one, which may be now.
  void Join(Waiter* waiter);
  /// Forgets `waiter`; returns false if it has been delivered to, or is just being.
  bool Leave(Waiter* waiter);

  void OnAccepted(RequestId id, int ahead) override {}
  void OnProgress(const char* stage, int64_t done, int64_t total) override {}
  void OnPrefill(const PromptTokens& prompt, int64_t cached_tokens, absl::Duration took) override {}
  bool OnChunk(TokenChunk chunk) override;
  void OnFinish(const absl::Status& status, GenerateResult result) override;

 private:
  void End(const absl::Status& status);

  ServerCore& core_;
  const std::string ask_id_;
  mutable absl::Mutex mutex_;
  Question question_ ABSL_GUARDED_BY(mutex_);
  Done done_ ABSL_GUARDED_BY(mutex_);
  Runtime* runtime_ ABSL_GUARDED_BY(mutex_) = nullptr;  // set once submitted
  RequestId id_ ABSL_GUARDED_BY(mutex_);
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;  // the last waiter left
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);       // once over
  v1::AskResponse response_ ABSL_GUARDED_BY(mutex_);  // complete once over
  std::vector<Waiter*> waiters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace videonsa
