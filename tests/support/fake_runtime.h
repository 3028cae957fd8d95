#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runtime/serving/runtime.h"

namespace videonsa {

/// How a FakeRuntime behaves.
struct FakeOptions {
  ModelFacts model;
  int max_waiting = 256;  ///< questions it holds; beyond: QUEUE_FULL
  /// Tokens of the answer when the question sets no max_output_tokens.
  int default_tokens = 16;
  /// Time of one step, in which every question gets one token; 0: as fast as it can.
  absl::Duration step = absl::ZeroDuration();
  /// Bytes of one token's text, at least; longer ones make readers fall behind.
  int token_bytes = 0;
  int most_pinned = 1000;  ///< pages that a session may keep
  bool manual = false;     ///< steps only when told by Step

  FakeOptions();
};

/// A runtime without a model: answers are a function of the question alone, so that an answer under
/// load can be compared with the same question asked alone. One thread gives each open question one
/// token a step. The question text may steer it: "fail:CODE" ends with that status code, "refuse"
/// is refused by Submit, "silent" never gets a token.
///
/// Threads: all methods from any thread.
class FakeRuntime : public Runtime {
 public:
  FakeRuntime(const FakeOptions& options, const Clock& clock);
  ~FakeRuntime() override;

  absl::StatusOr<RequestId> Submit(GenerateRequest request,
                                   std::shared_ptr<ResponseSink> sink) override;
  void Cancel(RequestId id) override;
  /// Notes it; a request that ends well keeps one page for each turn of its question.
  void Unpin(const SessionPin& pin) override;
  absl::StatusOr<EstimateResult> Estimate(const GenerateRequest& request) override;
  /// READY unless the file begins with "bad" (MEDIA_CORRUPT) or "die" (DECODER_DIED).
  absl::StatusOr<MediaFacts> Probe(const MediaSource& source) override;
  const ModelFacts& model() const override { return options_.model; }
  RuntimeStats Stats() const override;
  int Drain(absl::Duration timeout) override;

  /// With `manual`: gives every open question `count` tokens.
  void Step(int count);
  /// Makes Stats report a lost device.
  void Break();
  int submitted() const;
  int cancelled() const;
  int unpinned() const;  ///< calls of Unpin
  /// Open questions.
  int open() const;
  /// Waits until no question is open; false if `limit` passes first.
  bool WaitIdle(absl::Duration limit) const;
  /// The last request that was submitted.
  GenerateRequest last_request() const;
  /// CPU time of the step thread.
  absl::Duration step_cpu() const;

  /// The text of token `index` of the answer to `request`.
  static std::string TokenText(const GenerateRequest& request, int index, int token_bytes);
  /// The whole answer of `tokens` tokens.
  static std::string AnswerText(const GenerateRequest& request, int tokens, int token_bytes = 0);

 private:
  struct Job {
    RequestId id;
    GenerateRequest request;
    std::shared_ptr<ResponseSink> sink;
    int tokens = 0;  // of the answer
    int given = 0;
    std::string text;  // of the answer so far
    bool cancelled = false;
    bool drained = false;
    bool begun = false;
    std::string fail;  // code name to end with
    bool silent = false;
    absl::Duration received;
  };

  void Run();
  bool StepJob(Job& job, bool token);
  void Finish(Job& job, const absl::Status& status, FinishReason reason);

  const FakeOptions options_;
  const Clock& clock_;
  mutable absl::Mutex mutex_;
  std::vector<std::shared_ptr<Job>> jobs_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  int steps_ ABSL_GUARDED_BY(mutex_) = 0;  // manual steps still to do
  int submitted_ ABSL_GUARDED_BY(mutex_) = 0;
  int cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  int unpinned_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  GenerateRequest last_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace videonsa
