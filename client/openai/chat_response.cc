#include "client/openai/chat_response.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/format.h"
#include "nlohmann/json.hpp"

namespace videonsa::openai {
namespace {

using Json = nlohmann::ordered_json;

// Bytes that are not UTF-8 become U+FFFD instead of an exception.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json UsageOf(const v1::Usage& usage) {
  const int64_t prompt = usage.prompt().text() + usage.prompt().vision();
  return {{"prompt_tokens", prompt},
          {"completion_tokens", usage.output_tokens()},
          {"total_tokens", prompt + usage.output_tokens()},
          {"prompt_tokens_details",
           {{"cached_tokens", usage.cached_prompt_tokens()},
            {"text_tokens", usage.prompt().text()},
            {"video_tokens", usage.prompt().vision()}}}};
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

// What this server says beyond the API: why it ended, how long it took, what attention cost.
Json ReportOf(const v1::AskResult& result) {
  std::string reason = v1::AskResult::FinishReason_Name(result.finish_reason());
  return {{"finish_reason", std::string(absl::StripPrefix(reason, "FINISH_REASON_"))},
          {"frames_used", result.usage().frames_used()},
          {"time_to_first_token_s", Seconds(result.timing().time_to_first_token())},
          {"total_s", Seconds(result.timing().total())},
          {"attention", result.attention().semantics()},
          {"budget_fraction", result.attention().budget_fraction()},
          {"model_version", result.model_version()}};
}

Json Chunk(const AnswerHead& head, Json choices) {
  return {{"id", head.id},
          {"object", "chat.completion.chunk"},
          {"created", head.created},
          {"model", head.model},
          {"choices", std::move(choices)}};
}

Json Choice(Json delta, const char* finish_reason) {
  Json choice = {{"index", 0}, {"delta", std::move(delta)}, {"finish_reason", nullptr}};
  if (finish_reason != nullptr) choice["finish_reason"] = finish_reason;
  return Json::array({std::move(choice)});
}

Json Model(const v1::ModelInfo& model, int64_t started) {
  return {{"id", model.name()},
          {"object", "model"},
          {"created", started},
          {"owned_by", "videonsa"},
          {"max_model_len", model.max_context_tokens()}};
}

}  // namespace

const char* FinishReasonOf(v1::AskResult::FinishReason reason) {
  return reason == v1::AskResult::FINISH_REASON_STOP ? "stop" : "length";
}

std::string CompletionJson(const AnswerHead& head, const v1::AskResult& result) {
  const Json message = {{"role", "assistant"}, {"content", result.text()}, {"refusal", nullptr}};
  const Json choice = {{"index", 0},
                       {"message", message},
                       {"logprobs", nullptr},
                       {"finish_reason", FinishReasonOf(result.finish_reason())}};
  return Dump({{"id", head.id},
               {"object", "chat.completion"},
               {"created", head.created},
               {"model", head.model},
               {"choices", Json::array({choice})},
               {"usage", UsageOf(result.usage())},
               {"videonsa", ReportOf(result)}});
}

std::string RoleChunk(const AnswerHead& head) {
  return Dump(Chunk(head, Choice({{"role", "assistant"}, {"content", ""}}, nullptr)));
}

std::string TextChunk(const AnswerHead& head, absl::string_view text) {
  return Dump(Chunk(head, Choice({{"content", std::string(text)}}, nullptr)));
}

std::string FinishChunk(const AnswerHead& head, const v1::AskResult& result) {
  Json chunk = Chunk(head, Choice(Json::object(), FinishReasonOf(result.finish_reason())));
  chunk["videonsa"] = ReportOf(result);
  return Dump(chunk);
}

std::string UsageChunk(const AnswerHead& head, const v1::AskResult& result) {
  Json chunk = Chunk(head, Json::array());
  chunk["usage"] = UsageOf(result.usage());
  return Dump(chunk);
}

std::string SseEvent(absl::string_view json) { return absl::StrCat("data: ", json, "\n\n"); }

std::string ModelListJson(const v1::ModelInfo& model, int64_t started) {
  return Dump({{"object", "list"}, {"data", Json::array({Model(model, started)})}});
}

std::string ModelJson(const v1::ModelInfo& model, int64_t started) {
  return Dump(Model(model, started));
}

}  // namespace videonsa::openai
