#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "videonsa/v1/server.pb.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::openai {

/// What every object of one answer repeats.
struct AnswerHead {
  std::string id;       ///< "chatcmpl-" and the server's ask_id
  int64_t created = 0;  ///< seconds since 1970
  std::string model;
};

/// "stop" or "length", the two words of the API that fit; the server's own word stands in the
/// `videonsa` object.
const char* FinishReasonOf(v1::AskResult::FinishReason reason);

/// The body of a whole answer (`chat.completion`), one line. `result` carries its text.
std::string CompletionJson(const AnswerHead& head, const v1::AskResult& result);

/// One `chat.completion.chunk` as JSON, one line: the role, a piece of text, the end, the usage.
std::string RoleChunk(const AnswerHead& head);
std::string TextChunk(const AnswerHead& head, absl::string_view text);
std::string FinishChunk(const AnswerHead& head, const v1::AskResult& result);
std::string UsageChunk(const AnswerHead& head, const v1::AskResult& result);

/// `json` as one server-sent event.
std::string SseEvent(absl::string_view json);

/// The body of GET /v1/models: the one model that is served; `started` in seconds since 1970.
std::string ModelListJson(const v1::ModelInfo& model, int64_t started);
/// The body of GET /v1/models/ID.
std::string ModelJson(const v1::ModelInfo& model, int64_t started);

}  // namespace videonsa::openai
