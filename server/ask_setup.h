#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/call_context.h"
#include "server/question_parser.h"
#include "server/server_core.h"
#include "server/session_store.h"
#include "server/trace/question_trace.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

class AskRun;

/// A question ready to be submitted.
struct PreparedQuestion {
  Runtime* runtime = nullptr;
  QuestionTrace trace;
  ParsedQuestion parsed;  ///< request with tenant, ids and deadline filled in
  /// Complete but for clips that are to be fetched first (FetchQuestion).
  bool needs_fetch = false;
  std::shared_ptr<SessionTurn> turn;  ///< of the session that the question belongs to; else null
};

/// Ties a parsed question to its session; called once all its clips are there.
using SessionStep =
    std::function<absl::StatusOr<std::shared_ptr<SessionTurn>>(PreparedQuestion& question)>;

/// Admits and checks a question and takes its clips into use; counts refusals.
/// Errors: UNAVAILABLE (LOADING, DRAINING), PERMISSION_DENIED (URL_NOT_ALLOWED, SCOPE_MISSING), of
///         QuestionParser, DEADLINE_EXCEEDED, of SessionStore. Without `session`, a question that
///         names one is its next turn.
absl::StatusOr<PreparedQuestion> PrepareQuestion(ServerCore& core, const CallContext& call,
                                                 const v1::Question& question,
                                                 const SessionStep& session = nullptr);

/// What questions of a session must not say again.
/// Errors: INVALID_ARGUMENT.
absl::Status CheckSessionQuestion(const v1::Question& question);

/// Prepares `question`, fetches what it names by url and submits it to `run`, which hears of every
/// failure. Returns at once; the call may end before the run.
void StartRun(ServerCore& core, const CallContext& call, v1::Question question, SessionStep session,
              std::shared_ptr<AskRun> run);

/// What a fetch asks and tells. Both optional; called from a fetch thread.
struct FetchControl {
  std::function<bool()> cancelled;
  std::function<void(int64_t done, int64_t total)> progress;  ///< bytes; total -1: unknown
};

/// Fetches the clips that PrepareQuestion left out and prepares the question again; temporary clips
/// go with its holds. Counts refusals. Calls `ready` once: from a fetch thread, or at once with
/// UNAVAILABLE (QUEUE_FULL). Errors: those of PrepareQuestion and of the fetch (UrlFetcher).
void FetchQuestion(ServerCore& core, const CallContext& call, v1::Question question,
                   FetchControl control,
                   std::function<void(absl::StatusOr<PreparedQuestion>)> ready,
                   SessionStep session = nullptr);

}  // namespace videonsa
