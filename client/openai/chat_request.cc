#include "client/openai/chat_request.h"

#include <cstdint>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/openai/api_error.h"
#include "client/openai/content_parts.h"
#include "client/openai/data_urls.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace videonsa::openai {
namespace {

using nlohmann::json;

// What is being read.
struct Reading : ChatRequest {
  DataUrls data;
};
using Handler = absl::Status (*)(const std::string& name, const json& value, Reading& out);

absl::Status Invalid(const std::string& name, absl::string_view what) {
  return BadArgument(name, "FIELD_INVALID", absl::StrCat(name, ": ", what));
}

absl::Status Unsupported(const std::string& name, absl::string_view what) {
  return BadArgument(name, "UNSUPPORTED_PARAMETER", absl::StrCat(name, ": ", what));
}

// An integer within `int32_t`; "2.0" counts as one.
absl::StatusOr<int32_t> Int32Of(const std::string& name, const json& value) {
  constexpr double kMost = std::numeric_limits<int32_t>::max();
  if (value.is_number()) {
    const double number = value.get<double>();
    if (number >= -kMost && number <= kMost && number == static_cast<int32_t>(number)) {
      return static_cast<int32_t>(number);
    }
  }
  return Invalid(name, "must be an integer");
}

absl::Status TakeModel(const std::string& name, const json& value, Reading& out) {
  if (!value.is_string()) return Invalid(name, "must be a text");
  out.model = value.get<std::string>();
  return absl::OkStatus();
}

absl::Status TakeMessage(const json& message, const std::string& where, Reading& out) {
  if (!message.is_object()) return Invalid(where, "must be an object");
  const auto role_at = message.find("role");
  const auto content_at = message.find("content");
  if (role_at == message.end() || !role_at->is_string()) {
    return Invalid(absl::StrCat(where, ".role"), "must be a text");
  }
  for (const auto& [key, value] : message.items()) {
    if (key == "role" || key == "content" || key == "name" || value.is_null()) continue;
    if (value.is_array() && value.empty()) continue;  // "tool_calls": []
    return Unsupported(absl::StrCat(where, ".", key), "this argument cannot be honoured");
  }
  const std::string role = role_at->get<std::string>();
  const std::string field = absl::StrCat(where, ".content");
  if (content_at == message.end()) return Invalid(field, "is missing");
  if (role == "system" || role == "developer") {
    if (out.question.turns_size() > 0) {
      return Unsupported(absl::StrCat(where, ".role"),
                         "system messages must come before all others");
    }
    std::string text;
    if (absl::Status status = TextOf(*content_at, field, text); !status.ok()) return status;
    std::string& all = *out.question.mutable_system_instruction();
    if (!all.empty()) all += "\n\n";
    all += text;
    ++out.leading_system;
    return absl::OkStatus();
  }
  v1::Turn& turn = *out.question.add_turns();
  if (role == "user") {
    turn.set_role(v1::Turn::ROLE_USER);
    return AddContent(*content_at, field, out.data, turn);
  }
  if (role != "assistant") {
    return Unsupported(absl::StrCat(where, ".role"), "must be system, user or assistant");
  }
  turn.set_role(v1::Turn::ROLE_ASSISTANT);
  return TextOf(*content_at, field, *turn.add_parts()->mutable_text());
}

absl::Status TakeMessages(const std::string& name, const json& value, Reading& out) {
  if (!value.is_array() || value.empty()) return Invalid(name, "must be an array of messages");
  for (size_t i = 0; i < value.size(); ++i) {
    const absl::Status status = TakeMessage(value[i], absl::StrCat(name, "[", i, "]"), out);
    if (!status.ok()) return status;
  }
  if (out.question.turns_size() == 0) return Invalid(name, "hold no message of the user");
  return absl::OkStatus();
}

absl::Status TakeStream(const std::string& name, const json& value, Reading& out) {
  if (!value.is_boolean()) return Invalid(name, "must be true or false");
  out.stream = value.get<bool>();
  return absl::OkStatus();
}

absl::Status TakeStreamOptions(const std::string& name, const json& value, Reading& out) {
  if (!value.is_object()) return Invalid(name, "must be an object");
  for (const auto& [key, item] : value.items()) {
    if (item.is_null() || key == "include_obfuscation") continue;
    if (key != "include_usage") {
      return BadArgument(absl::StrCat(name, ".", key), "UNKNOWN_PARAMETER",
                         absl::StrCat(name, ".", key, ": no such argument"));
    }
    if (!item.is_boolean()) return Invalid(absl::StrCat(name, ".", key), "must be true or false");
    out.include_usage = item.get<bool>();
  }
  return absl::OkStatus();
}

absl::Status TakeMaxTokens(const std::string& name, const json& value, Reading& out) {
  const absl::StatusOr<int32_t> tokens = Int32Of(name, value);
  if (!tokens.ok()) return tokens.status();
  v1::GenerationConfig& generation = *out.question.mutable_generation();
  if (generation.has_max_output_tokens() && generation.max_output_tokens() != *tokens) {
    return Invalid(name, "max_tokens and max_completion_tokens contradict each other");
  }
  generation.set_max_output_tokens(*tokens);
  return absl::OkStatus();
}

// A number of the generation; its range is the server's to judge.
template <auto set>
absl::Status TakeFloat(const std::string& name, const json& value, Reading& out) {
  if (!value.is_number()) return Invalid(name, "must be a number");
  (out.question.mutable_generation()->*set)(value.get<float>());
  return absl::OkStatus();
}

absl::Status TakeTopK(const std::string& name, const json& value, Reading& out) {
  const absl::StatusOr<int32_t> top_k = Int32Of(name, value);
  if (!top_k.ok()) return top_k.status();
  out.question.mutable_generation()->set_top_k(*top_k);
  return absl::OkStatus();
}

absl::Status TakeSeed(const std::string& name, const json& value, Reading& out) {
  if (!value.is_number_unsigned()) return Invalid(name, "must be an integer of at least 0");
  out.question.mutable_generation()->set_seed(value.get<uint64_t>());
  return absl::OkStatus();
}

absl::Status TakeStop(const std::string& name, const json& value, Reading& out) {
  v1::GenerationConfig& generation = *out.question.mutable_generation();
  if (value.is_string()) {
    generation.add_stop(value.get<std::string>());
    return absl::OkStatus();
  }
  if (!value.is_array()) return Invalid(name, "must be a text or an array of texts");
  for (const json& item : value) {
    if (!item.is_string()) return Invalid(name, "must be a text or an array of texts");
    generation.add_stop(item.get<std::string>());
  }
  return absl::OkStatus();
}

// Arguments that change nothing while they have one value.
absl::Status MustBeOne(const std::string& name, const json& value, Reading&) {
  return value == 1 ? absl::OkStatus() : Unsupported(name, "only 1 is supported");
}
absl::Status MustBeZero(const std::string& name, const json& value, Reading&) {
  return value == 0 ? absl::OkStatus() : Unsupported(name, "only 0 is supported");
}
absl::Status MustBeFalse(const std::string& name, const json& value, Reading&) {
  return value == false ? absl::OkStatus() : Unsupported(name, "only false is supported");
}
absl::Status MustBeEmpty(const std::string& name, const json& value, Reading&) {
  const bool empty = (value.is_array() || value.is_object()) && value.empty();
  return empty ? absl::OkStatus() : Unsupported(name, "is not supported");
}
absl::Status MustBeText(const std::string& name, const json& value, Reading&) {
  const bool text = value == json{{"type", "text"}} || value == json::array({"text"});
  return text ? absl::OkStatus() : Unsupported(name, "only plain text is supported");
}
absl::Status MustBeNoTool(const std::string& name, const json& value, Reading&) {
  return value == "none" || value == "auto" ? absl::OkStatus()
                                            : Unsupported(name, "tools are not supported");
}
absl::Status Refuse(const std::string& name, const json&, Reading&) {
  return Unsupported(name, "is not supported");
}
absl::Status Ignore(const std::string&, const json&, Reading&) { return absl::OkStatus(); }

// {"attention": AttentionConfig, "priority": Priority}, in protobuf's JSON form.
absl::Status TakeVideonsa(const std::string& name, const json& value, Reading& out) {
  if (!value.is_object()) return Invalid(name, "must be an object");
  for (const auto& [key, item] : value.items()) {
    if (key != "attention" && key != "priority") {
      return BadArgument(absl::StrCat(name, ".", key), "UNKNOWN_PARAMETER",
                         absl::StrCat(name, ".", key, ": no such argument"));
    }
  }
  v1::Question extra;
  const auto status = google::protobuf::util::JsonStringToMessage(value.dump(), &extra);
  if (!status.ok()) {
    return Invalid(
        name, absl::StrCat("is not understood: ", std::string(status.message()).substr(0, 200)));
  }
  if (extra.has_attention()) *out.question.mutable_attention() = extra.attention();
  out.question.set_priority(extra.priority());
  return absl::OkStatus();
}

const std::map<std::string, Handler>& Handlers() {
  using Generation = v1::GenerationConfig;
  static const auto* const handlers = new std::map<std::string, Handler>{
      {"model", TakeModel},
      {"messages", TakeMessages},
      {"stream", TakeStream},
      {"stream_options", TakeStreamOptions},
      {"max_tokens", TakeMaxTokens},
      {"max_completion_tokens", TakeMaxTokens},
      {"temperature", TakeFloat<&Generation::set_temperature>},
      {"top_p", TakeFloat<&Generation::set_top_p>},
      {"min_p", TakeFloat<&Generation::set_min_p>},
      {"repetition_penalty", TakeFloat<&Generation::set_repetition_penalty>},
      {"top_k", TakeTopK},
      {"seed", TakeSeed},
      {"stop", TakeStop},
      {"videonsa", TakeVideonsa},
      {"n", MustBeOne},
      {"presence_penalty", MustBeZero},
      {"frequency_penalty", MustBeZero},
      {"top_logprobs", MustBeZero},
      {"logprobs", MustBeFalse},
      {"store", MustBeFalse},
      {"logit_bias", MustBeEmpty},
      {"tools", MustBeEmpty},
      {"functions", MustBeEmpty},
      {"response_format", MustBeText},
      {"modalities", MustBeText},
      {"tool_choice", MustBeNoTool},
      {"function_call", MustBeNoTool},
      {"audio", Refuse},
      {"prediction", Refuse},
      {"reasoning_effort", Refuse},
      {"verbosity", Refuse},
      {"web_search_options", Refuse},
      {"metadata", Ignore},
      {"parallel_tool_calls", Ignore},
      {"prompt_cache_key", Ignore},
      {"safety_identifier", Ignore},
      {"service_tier", Ignore},
      {"user", Ignore},
  };
  return *handlers;
}

}  // namespace

absl::StatusOr<ChatRequest> ParseChatRequest(absl::string_view body) {
  Reading out;
  out.data = DataUrls(body);
  const absl::string_view text = out.data.json();
  const json root = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded() || !root.is_object()) {
    return BadArgument("", "BODY_NOT_JSON", "the body is not a JSON object in UTF-8");
  }
  for (const char* needed : {"model", "messages"}) {
    if (!root.contains(needed)) return Invalid(needed, "is missing");
  }
  for (const auto& [name, value] : root.items()) {
    const auto handler = Handlers().find(name);
    if (handler == Handlers().end()) {
      return BadArgument(name.substr(0, 64), "UNKNOWN_PARAMETER",
                         absl::StrCat(name.substr(0, 64), ": no such argument"));
    }
    if (value.is_null() && name != "model" && name != "messages") continue;
    if (absl::Status status = handler->second(name, value, out); !status.ok()) return status;
  }
  return ChatRequest(std::move(static_cast<ChatRequest&>(out)));
}

}  // namespace videonsa::openai
