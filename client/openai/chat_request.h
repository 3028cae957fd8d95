#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::openai {

/// The body of POST /v1/chat/completions, checked and translated.
struct ChatRequest {
  std::string model;
  bool stream = false;
  bool include_usage = false;  ///< stream_options.include_usage
  /// Messages that became the system instruction.
  int leading_system = 0;
  /// What to ask. Media of data: URLs are inline bytes, whatever their size; other URLs and
  /// "clips/ID" stay references.
  v1::Question question;
};

/// Reads the JSON body.
///
/// An argument that would change the answer and that this server cannot honour is refused, never
/// dropped; ones that cannot change it (`user`, `metadata`) are taken and ignored.
/// Errors: INVALID_ARGUMENT with the argument's name (see ToApiError): BODY_NOT_JSON,
///         FIELD_INVALID, UNKNOWN_PARAMETER, UNSUPPORTED_PARAMETER.
/// Threads: any.
absl::StatusOr<ChatRequest> ParseChatRequest(absl::string_view body);

}  // namespace videonsa::openai
