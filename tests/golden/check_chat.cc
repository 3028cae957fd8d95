// Conversations: lists of {"messages", "prompt", "ids"} with optional "add_generation_prompt",
// "add_vision_id", "grids_thw" and "expanded_ids" (pads multiplied), and
// "ids_user_text_neutralised" (what a server computes where the reference lets text become control
// tokens).
#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/text/chat_config.h"
#include "runtime/text/model_file.h"
#include "runtime/text/nfc.h"
#include "runtime/text/prompt_layout.h"
#include "runtime/text/tokenizer.h"
#include "tests/golden/checks.h"
#include "tests/golden/tokenizer_files.h"

namespace videonsa::golden {
namespace {

using nlohmann::json;

bool FlagOf(const json& item, const char* key, bool default_value) {
  return item.contains(key) && item[key].is_boolean() ? item[key].get<bool>() : default_value;
}

absl::StatusOr<ChatTokens> TokensOf(const std::string& folder, const Tokenizer& tokenizer) {
  if (HasModelFile(folder, "config.json")) {
    VNSA_ASSIGN_OR_RETURN(ChatConfig config, ReadChatConfig(folder, tokenizer));
    return config.tokens;
  }
  const auto id = [&](const char* name) { return tokenizer.AddedTokenId(name).value_or(-1); };
  ChatTokens tokens;
  tokens.im_start = id("<|im_start|>");
  tokens.im_end = id("<|im_end|>");
  tokens.vision_start = id("<|vision_start|>");
  tokens.vision_end = id("<|vision_end|>");
  tokens.image_pad = id("<|image_pad|>");
  tokens.video_pad = id("<|video_pad|>");
  return tokens;
}

// The k-th grid of a kind, or the smallest one: a single pad.
PatchGrid GridOf(const json& item, const char* kind, size_t idx) {
  if (item.contains("grids_thw") && item["grids_thw"].contains(kind)) {
    const std::vector<int64_t> values = IntegersOf(item["grids_thw"][kind]);
    if (values.size() >= 3 * idx + 3) {
      return {static_cast<int>(values[3 * idx]), static_cast<int>(values[3 * idx + 1]),
              static_cast<int>(values[3 * idx + 2])};
    }
  }
  return {1, 2, 2};
}

void AddPart(const json& content, const json& item, bool use_grids, ChatTurn& turn,
             ChatPrompt& prompt) {
  const std::string type = content.value("type", "");
  const bool image = type == "image" || content.contains("image") || content.contains("image_url");
  ChatPart part;
  if (image || type == "video" || content.contains("video")) {
    size_t of_kind = 0;
    for (const VisualShape& visual : prompt.visuals) of_kind += visual.image == image;
    part.is_visual = true;
    part.visual_idx = static_cast<int>(prompt.visuals.size());
    prompt.visuals.push_back({.image = image,
                              .grid = use_grids ? GridOf(item, image ? "image" : "video", of_kind)
                                                : PatchGrid{1, 2, 2}});
  } else if (content.contains("text")) {
    part.text = content["text"].get<std::string>();
  }
  turn.parts.push_back(std::move(part));
}

ChatPrompt PromptOf(const json& item, bool use_grids) {
  ChatPrompt prompt;
  prompt.generation_prompt = FlagOf(item, "add_generation_prompt", true);
  prompt.number_visuals = FlagOf(item, "add_vision_id", false);
  for (const json& message : item["messages"]) {
    ChatTurn turn;
    const std::string role = message.value("role", "");
    turn.role = role == "system"      ? ChatRole::kSystem
                : role == "assistant" ? ChatRole::kAssistant
                                      : ChatRole::kUser;
    const json& content = message["content"];
    if (content.is_string()) {
      turn.parts.push_back({.text = content.get<std::string>()});
    } else {
      for (const json& part : content) AddPart(part, item, use_grids, turn, prompt);
    }
    prompt.turns.push_back(std::move(turn));
  }
  return prompt;
}

// Whether some text of the conversation holds the name of a special token.
bool HasLookAlike(const ChatPrompt& prompt, const Tokenizer& tokenizer) {
  for (const ChatTurn& turn : prompt.turns) {
    for (const ChatPart& part : turn.parts) {
      const auto ids = tokenizer.EncodeWithSpecial(part.text);
      for (size_t i = 0; ids.ok() && i < ids->size(); ++i) {
        if (tokenizer.IsSpecial((*ids)[i])) return true;
      }
    }
  }
  return false;
}

void CheckConversation(const std::string& name, const json& item, const Tokenizer& tokenizer,
                       const ChatTokens& tokens, Reporter& reporter) {
  const std::string rendered = item["prompt"].get<std::string>();
  const auto reference = tokenizer.EncodeWithSpecial(rendered);
  if (!reporter.ExpectOk(name, "rendered prompt", reference.status())) return;
  reporter.ExpectEqual(name, "ids of the rendered prompt", *reference, IntegersOf(item["ids"]));

  const ChatPrompt prompt = PromptOf(item, /*use_grids=*/false);
  const auto layout = LayOutPrompt(tokenizer, tokens, prompt);
  if (!reporter.ExpectOk(name, "layout", layout.status())) return;
  std::string storage;
  reporter.ExpectEqualText(name, "layout decoded",
                           tokenizer.Decode(layout->token_ids, /*keep_special=*/true),
                           NormalizeNfc(rendered, storage));
  if (item.contains("ids_user_text_neutralised")) {
    reporter.ExpectEqual(name, "ids_user_text_neutralised", layout->token_ids,
                         IntegersOf(item["ids_user_text_neutralised"]));
  } else if (!HasLookAlike(prompt, tokenizer)) {
    reporter.ExpectEqual(name, "ids", layout->token_ids, IntegersOf(item["ids"]));
  }
  if (!item.contains("expanded_ids")) return;
  const auto expanded = LayOutPrompt(tokenizer, tokens, PromptOf(item, /*use_grids=*/true));
  if (!reporter.ExpectOk(name, "expanded_ids", expanded.status())) return;
  reporter.ExpectEqual(name, "expanded_ids", expanded->token_ids, IntegersOf(item["expanded_ids"]));
}

bool IsConversation(const json& item) {
  if (!item.is_object() || !item.contains("messages") || !item["messages"].is_array() ||
      !item.contains("ids") || !item["ids"].is_array() || !item.contains("prompt") ||
      !item["prompt"].is_string()) {
    return false;
  }
  for (const json& message : item["messages"]) {
    if (!message.is_object() || !message.contains("content")) return false;
    const json& content = message["content"];
    if (content.is_string()) continue;
    if (!content.is_array()) return false;
    for (const json& part : content) {
      if (!part.is_object() || (part.contains("text") && !part["text"].is_string())) return false;
    }
  }
  return true;
}

}  // namespace

void CheckChat(const GoldenOptions& options, Reporter& reporter) {
  CaseTokenizers tokenizers(options, reporter);
  for (const std::string& path : FindFiles(options.dir, ".json")) {
    const auto file = ReadJson(path);
    if (!file.ok()) continue;
    const json& list = file->is_object() && file->contains("cases") ? (*file)["cases"] : *file;
    if (!list.is_array() || std::none_of(list.begin(), list.end(), IsConversation)) continue;
    const CaseTokenizers::Loaded* const loaded = tokenizers.For(path, *file);
    if (loaded == nullptr) continue;
    const std::string stem = std::filesystem::path(path).stem().string();
    const auto tokens = TokensOf(loaded->folder, *loaded->tokenizer);
    if (!reporter.ExpectOk(stem, "control tokens", tokens.status())) continue;
    for (size_t i = 0; i < list.size(); ++i) {
      const json& item = list[i];
      if (!IsConversation(item)) continue;
      const std::string name = item.contains("name") && item["name"].is_string()
                                   ? item["name"].get<std::string>()
                                   : absl::StrCat(i);
      CheckConversation(absl::StrCat(stem, "/", name), item, *loaded->tokenizer, *tokens, reporter);
    }
  }
}

}  // namespace videonsa::golden
