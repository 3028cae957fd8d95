#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "runtime/api/generate_result.h"
#include "runtime/serving/runtime.h"
#include "server/ask_setup.h"
#include "server/server_core.h"
#include "server/stream_writer.h"
#include "server/watchdog.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

/// Several questions about the same visuals. The first is asked alone; when its prompt is
/// prefilled, whose pages are kept until the last question has ended, all others are asked.
///
/// Invariants: every question has exactly one answer or error; at most one write is in flight and
///             its message is not touched until OnWritten; End is called once.
/// Threads: any. Lifetime: shared by runtime and call; the call detaches before it dies.
class AskManyRun : public StreamSource,
                   public Watched,
                   public std::enable_shared_from_this<AskManyRun> {
 public:
  using Writer = StreamWriter<v1::AskManyResponse>;

  AskManyRun(ServerCore& core, std::string ask_id, std::vector<std::string> questions,
             Writer* writer);
  ~AskManyRun() override;

  /// Asks. `shared` holds the turns with questions[0] as their last text.
  void Start(PreparedQuestion shared);
  bool ended() const;

  // From the call.
  void OnWritten(bool ok) override;
  void Cancel(const absl::Status& status) override;
  void Detach() override;
  // From the watchdog.
  void Check(absl::Duration now) override;

 private:
  class Sink;

  void Ask(int index);
  void Prefilled(int index);
  void Answered(int index, const absl::Status& status, v1::AskResult result);
  void AskRest();
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<RequestId> Open() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ServerCore& core_;
  const std::string ask_id_;
  const std::vector<std::string> questions_;

  // Set by Start, constant after.
  Runtime* runtime_ = nullptr;
  GenerateRequest first_;
  std::shared_ptr<SessionPin> pin_;
  std::shared_ptr<SessionTurn> turn_;
  QuestionTrace trace_;
  std::vector<std::shared_ptr<void>> holds_;

  mutable absl::Mutex mutex_;
  Writer* writer_ ABSL_GUARDED_BY(mutex_);              // null once detached
  std::vector<RequestId> ids_ ABSL_GUARDED_BY(mutex_);  // by question; 0: not submitted
  std::vector<bool> over_ ABSL_GUARDED_BY(mutex_);      // by question
  int num_over_ ABSL_GUARDED_BY(mutex_) = 0;
  int lead_ ABSL_GUARDED_BY(mutex_) = 0;  // the question that prefills for the others
  bool all_asked_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<v1::AskManyResponse> pending_ ABSL_GUARDED_BY(mutex_);
  bool in_flight_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration write_begin_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace videonsa
