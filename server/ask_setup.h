#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/call_context.h"
#include "server/question_parser.h"
#include "server/server_core.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa {

/// A question ready to be submitted.
struct PreparedQuestion {
  Runtime* runtime = nullptr;
  ParsedQuestion parsed;  ///< request with tenant, ids and deadline filled in
  /// Complete but for clips that are to be fetched first (ClipImporter::Localize).
  bool needs_fetch = false;
};

/// Admits and checks a question and takes its clips into use; counts refusals.
/// Errors: UNAVAILABLE (LOADING, DRAINING), PERMISSION_DENIED (URL_NOT_ALLOWED), those of
///         QuestionParser, DEADLINE_EXCEEDED.
absl::StatusOr<PreparedQuestion> PrepareQuestion(ServerCore& core, const CallContext& call,
                                                 const v1::Question& question);

/// One line about an ended question: ids, status, tokens, times.
void LogEnded(const CallContext& call, const std::string& ask_id, const absl::Status& status,
              absl::Duration took);

}  // namespace videonsa
