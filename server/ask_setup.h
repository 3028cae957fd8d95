#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "server/call_context.h"
#include "server/question_parser.h"
#include "server/server_core.h"
#include "server/trace/question_trace.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

/// A question ready to be submitted.
struct PreparedQuestion {
  Runtime* runtime = nullptr;
  QuestionTrace trace;
  ParsedQuestion parsed;  ///< request with tenant, ids and deadline filled in
  /// Complete but for clips that are to be fetched first (FetchQuestion).
  bool needs_fetch = false;
};

/// Admits and checks a question and takes its clips into use; counts refusals.
/// Errors: UNAVAILABLE (LOADING, DRAINING), PERMISSION_DENIED (URL_NOT_ALLOWED, SCOPE_MISSING), of
///         QuestionParser, DEADLINE_EXCEEDED.
absl::StatusOr<PreparedQuestion> PrepareQuestion(ServerCore& core, const CallContext& call,
                                                 const v1::Question& question);

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
                   std::function<void(absl::StatusOr<PreparedQuestion>)> ready);

/// One line about an ended question: ids, status, tokens, times.
void LogEnded(const CallContext& call, const std::string& ask_id, const absl::Status& status,
              absl::Duration took);

}  // namespace videonsa
