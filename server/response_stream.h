#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/synchronization/mutex.h"
#include "runtime/api/generate_result.h"
#include "runtime/serving/runtime.h"
#include "server/server_core.h"
#include "server/session_store.h"
#include "server/stream_writer.h"
#include "server/watchdog.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

/// Between the runtime's threads, which must never wait, and a reader that may be slow.
///
/// The runtime appends; what cannot be written yet is merged: text into one pending piece, progress
/// into the latest. A slow reader costs at most `behind` bytes; past them the stream ends with
/// RESOURCE_EXHAUSTED (READER_TOO_SLOW) and the request is cancelled. A single write that does not
/// end within `stall` has the call cut.
///
/// Invariants: at most one write in flight; its message is not touched until OnWritten; the
///             writer's End is called exactly once, the first end wins; events come in the order
///             accepted, progress*, prefill, delta*, final; progress of fetching comes before.
/// Threads:    any. Lifetime: shared by runtime and call; the call detaches before it dies.
class ResponseStream : public ResponseSink, public StreamSource, public Watched {
 public:
  using Writer = StreamWriter<v1::AskStreamResponse>;

  /// What the stream needs to know about its question.
  struct Question {
    std::string ask_id;
    ReportParams report;
    Priority priority = Priority::kStandard;
    int min_tokens = 1;                        ///< per delta
    std::vector<std::shared_ptr<void>> holds;  ///< released when the request ends
    std::shared_ptr<SessionTurn> turn;         ///< told how it ended before the reader; or null
  };

  ResponseStream(ServerCore& core, Question question, Writer* writer);

  /// Says which request feeds the stream, so that it can be cancelled.
  void SetRequest(Runtime& runtime, RequestId id);

  // From the runtime.
  void OnAccepted(RequestId id, int ahead) override;
  void OnProgress(const char* stage, int64_t done, int64_t total) override;
  void OnPrefill(const PromptTokens& prompt, int64_t cached_tokens, absl::Duration took) override;
  bool OnChunk(TokenChunk chunk) override;
  void OnFinish(const absl::Status& status, GenerateResult result) override;

  // From the call.
  void OnWritten(bool ok) override;
  /// Keeps `holds` until the request ends. Requires: called before SetRequest.
  void Hold(std::vector<std::shared_ptr<void>> holds);
  /// The session that the answer becomes part of. Requires: called before SetRequest.
  void SetTurn(std::shared_ptr<SessionTurn> turn);
  /// Whether the writer has been told its end.
  bool ended() const;
  void Cancel(const absl::Status& status) override;
  void Detach() override;

  // From the watchdog.
  void Check(absl::Duration now) override;

 private:
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NextEvent(v1::AskStreamResponse& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndNow(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// What must be cancelled once the lock is gone.
  std::function<void()> CancelRequest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ServerCore& core_;
  mutable absl::Mutex mutex_;
  Question question_ ABSL_GUARDED_BY(mutex_);
  Writer* writer_ ABSL_GUARDED_BY(mutex_);  // null once detached
  Runtime* runtime_ ABSL_GUARDED_BY(mutex_) = nullptr;
  RequestId id_ ABSL_GUARDED_BY(mutex_);

  std::optional<v1::AcceptedEvent> accepted_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::ProgressEvent> progress_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::PrefillEvent> prefill_ ABSL_GUARDED_BY(mutex_);
  v1::DeltaEvent delta_ ABSL_GUARDED_BY(mutex_);
  int64_t delta_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<v1::AskResult> final_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);  // after all that is pending
  bool in_flight_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;          // Finish was called
  bool request_over_ ABSL_GUARDED_BY(mutex_) = false;   // OnFinish came
  absl::Duration write_begin_ ABSL_GUARDED_BY(mutex_);  // of the write in flight
  absl::Duration last_chunk_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
};

}  // namespace videonsa
