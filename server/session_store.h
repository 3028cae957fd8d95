#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/api/generate_request.h"
#include "runtime/api/generate_result.h"
#include "runtime/base/clock.h"
#include "server/options.h"
#include "server/question_parser.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

class SessionStore;

/// The right to go on with a session, for one request. What the request adds becomes part of the
/// session when it ends well; until then, and if it never does, the session is as it was.
///
/// Threads: any. Lifetime: the store outlives it.
class SessionTurn {
 public:
  /// Gives the session back as it was, unless Finished was called.
  ~SessionTurn();
  SessionTurn(const SessionTurn&) = delete;
  SessionTurn& operator=(const SessionTurn&) = delete;

  /// The request has ended; the session may be used again before this returns. Idempotent.
  void Finished(const absl::Status& status, const GenerateResult& result);

 private:
  friend class SessionStore;
  /// What becomes part of the session.
  enum class Kind { kCreate, kAppend, kAnswer, kNothing };
  SessionTurn(SessionStore* store, std::string id, Kind kind)
      : store_(store), id_(std::move(id)), kind_(kind) {}

  SessionStore* const store_;
  const std::string id_;
  const Kind kind_;
  std::vector<Turn> turns_;                   // of the session once the request has ended
  std::vector<std::shared_ptr<void>> holds_;  // of the clips among them
  std::shared_ptr<const SessionPin> pin_;     // tells this session from a later one
  std::atomic<bool> over_{false};
};

/// Conversations about clips that callers go on with: turns, answers, clips in use, and the pin
/// under which the runtime keeps their pages. A session lives in memory, until it was not used for
/// its time to live, is deleted or the server ends.
///
/// Nothing tells one tenant that another's session exists.
///
/// Threads: all methods may be called from any thread; none waits.
class SessionStore {
 public:
  /// `unpin` is called, without a lock of the store, with the closed pin of a session that is over.
  SessionStore(const SessionOptions& options, const QuestionLimits& limits, const Clock& clock,
               std::function<void(const SessionPin&)> unpin);

  /// Reserves session `id` and completes `question`, whose turns are its prefix. It can be used
  /// once the request has ended well.
  /// Errors: INVALID_ARGUMENT (no clip, a ttl out of range), RESOURCE_EXHAUSTED (QUOTA_EXCEEDED).
  absl::StatusOr<std::shared_ptr<SessionTurn>> Create(const std::string& tenant,
                                                      const std::string& id, absl::Duration ttl,
                                                      ParsedQuestion& question);
  /// Puts the session's turns before those of `question`, one user turn.
  /// Errors: NOT_FOUND, ABORTED (SESSION_BUSY), INVALID_ARGUMENT (limits over all turns).
  absl::StatusOr<std::shared_ptr<SessionTurn>> Ask(const std::string& tenant,
                                                   const std::string& name,
                                                   ParsedQuestion& question);
  /// The same for questions that leave the session as it is and its pages where they are.
  absl::StatusOr<std::shared_ptr<SessionTurn>> Peek(const std::string& tenant,
                                                    const std::string& name,
                                                    ParsedQuestion& question);
  /// The same for parts that are prefilled, not answered.
  /// Errors: also FAILED_PRECONDITION (SESSION_NOT_APPENDABLE) if rows depend on what follows them,
  ///         RESOURCE_EXHAUSTED (QUOTA_EXCEEDED).
  absl::StatusOr<std::shared_ptr<SessionTurn>> Append(const std::string& tenant,
                                                      const std::string& name,
                                                      AttentionSemantics trained,
                                                      ParsedQuestion& question);

  /// Errors: NOT_FOUND.
  absl::StatusOr<v1::GetSessionResponse> Get(const std::string& tenant, const std::string& name,
                                             AttentionSemantics trained) const;
  /// An unknown session is fine. A request that is under way goes on.
  void Delete(const std::string& tenant, const std::string& name);
  /// Ends the sessions that were not used for their time to live; returns how many.
  int Sweep();
  int size() const;

  /// A pin that belongs to no session.
  std::shared_ptr<SessionPin> MakePin();

 private:
  friend class SessionTurn;
  struct Session {
    std::string tenant;
    std::string system_instruction;
    AttentionParams attention;
    std::vector<Turn> turns;
    std::vector<std::shared_ptr<void>> holds;
    std::shared_ptr<SessionPin> pin;
    PromptTokens prompt;
    absl::Duration ttl;
    absl::Time create_time;
    absl::Duration last_use;
    bool ready = false;  // its creation has ended well
    bool busy = true;    // a SessionTurn is out
  };
  using Sessions = absl::flat_hash_map<std::string, Session>;

  absl::StatusOr<std::shared_ptr<SessionTurn>> GoOn(const std::string& tenant,
                                                    const std::string& name, SessionTurn::Kind kind,
                                                    ParsedQuestion& question)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Session* Find(const std::string& tenant, const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckQuota(const std::string& tenant, int64_t more_bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckLimits(const std::vector<Turn>& turns) const;
  absl::Time ExpiryOf(const Session& session) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void End(SessionTurn& turn, const absl::Status& status, const GenerateResult* result);
  void Close(const std::vector<std::shared_ptr<SessionPin>>& pins);

  const SessionOptions options_;
  const QuestionLimits limits_;
  const Clock& clock_;
  const std::function<void(const SessionPin&)> unpin_;
  std::atomic<uint64_t> next_pin_{1};
  mutable absl::Mutex mutex_;
  Sessions sessions_ ABSL_GUARDED_BY(mutex_);  // by id
};

}  // namespace videonsa
