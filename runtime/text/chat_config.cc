#include "runtime/text/chat_config.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/text/model_file.h"

namespace videonsa {
namespace {

using nlohmann::json;

constexpr char kConfigFile[] = "config.json";
constexpr char kGenerationFile[] = "generation_config.json";
constexpr int64_t kMaxConfigBytes = 16 << 20;
constexpr int64_t kMaxTokensPerSecond = 1 << 16;

// A field of the object or, in the newer layouts, of its text_config; null if absent.
const json* FindField(const json& config, const char* key) {
  for (const json* object :
       {&config, config.contains("text_config") ? &config["text_config"] : nullptr}) {
    if (object == nullptr || !object->is_object()) continue;
    const auto it = object->find(key);
    if (it != object->end() && !it->is_null()) return &*it;
  }
  return nullptr;
}

absl::StatusOr<int32_t> TokenIdOf(const json& value, const char* key, const char* file) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= uint64_t{kMaxTokenIds}) {
    return ModelFileError(file, absl::StrCat(key, " is not a token id below ", kMaxTokenIds));
  }
  return value.get<int32_t>();
}

absl::StatusOr<int32_t> RequireTokenId(const json& config, const char* key) {
  const json* value = FindField(config, key);
  if (value == nullptr) return ModelFileError(kConfigFile, absl::StrCat(key, " is missing"));
  return TokenIdOf(*value, key, kConfigFile);
}

absl::StatusOr<int32_t> RequireAddedToken(const Tokenizer& tokenizer, const char* content) {
  const std::optional<int32_t> id = tokenizer.AddedTokenId(content);
  if (!id.has_value()) {
    return ModelFileError("tokenizer.json", absl::StrCat("no added token ", content));
  }
  return *id;
}

// One id or a list of ids; nothing if the field is absent.
absl::Status ReadEndTokens(const json& config, const char* file, std::vector<int32_t>& ids) {
  const json* value = FindField(config, "eos_token_id");
  if (value == nullptr) return absl::OkStatus();
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& item : list) {
    VNSA_ASSIGN_OR_RETURN(const int32_t id, TokenIdOf(item, "eos_token_id", file));
    ids.push_back(id);
  }
  return absl::OkStatus();
}

absl::Status ReadTokensPerSecond(const json& config, ChatTokens& tokens) {
  const auto vision = config.find("vision_config");
  if (vision == config.end() || !vision->is_object()) {
    return ModelFileError(kConfigFile, "vision_config is missing");
  }
  const auto value = vision->find("tokens_per_second");
  if (value == vision->end()) return absl::OkStatus();
  // Some writers store 2.0.
  const double number = value->is_number() ? value->get<double>() : -1;
  if (!(number >= 1 && number <= kMaxTokensPerSecond) || number != static_cast<int>(number)) {
    return ModelFileError(
        kConfigFile, absl::StrCat("vision_config.tokens_per_second is not a whole number in 1..",
                                  kMaxTokensPerSecond));
  }
  tokens.tokens_per_second = static_cast<int>(number);
  return absl::OkStatus();
}

absl::Status CheckControlIds(const ChatTokens& tokens, const Tokenizer& tokenizer) {
  std::array<std::pair<int32_t, const char*>, 6> ids = {
      {{tokens.im_start, "<|im_start|>"},
       {tokens.im_end, "<|im_end|>"},
       {tokens.vision_start, "vision_start_token_id"},
       {tokens.vision_end, "vision_end_token_id"},
       {tokens.image_pad, "image_token_id"},
       {tokens.video_pad, "video_token_id"}}};
  std::sort(ids.begin(), ids.end());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto& [id, name] = ids[i];
    if (!tokenizer.IsSpecial(id)) {
      return ModelFileError(kConfigFile,
                            absl::StrCat(name, " is ", id, ", which is not a special token"));
    }
    if (i > 0 && ids[i - 1].first == id) {
      return ModelFileError(kConfigFile,
                            absl::StrCat(ids[i - 1].second, " and ", name, " are both ", id));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ChatConfig> ReadChatConfig(const std::string& model_dir,
                                          const Tokenizer& tokenizer) {
  ChatConfig chat;
  VNSA_ASSIGN_OR_RETURN(const std::string text,
                        ReadModelFile(model_dir, kConfigFile, kMaxConfigBytes));
  VNSA_ASSIGN_OR_RETURN(const json config, ParseModelJson(text, kConfigFile));
  ChatTokens& tokens = chat.tokens;
  VNSA_ASSIGN_OR_RETURN(tokens.vision_start, RequireTokenId(config, "vision_start_token_id"));
  VNSA_ASSIGN_OR_RETURN(tokens.vision_end, RequireTokenId(config, "vision_end_token_id"));
  VNSA_ASSIGN_OR_RETURN(tokens.image_pad, RequireTokenId(config, "image_token_id"));
  VNSA_ASSIGN_OR_RETURN(tokens.video_pad, RequireTokenId(config, "video_token_id"));
  VNSA_ASSIGN_OR_RETURN(tokens.im_start, RequireAddedToken(tokenizer, "<|im_start|>"));
  VNSA_ASSIGN_OR_RETURN(tokens.im_end, RequireAddedToken(tokenizer, "<|im_end|>"));
  VNSA_RETURN_IF_ERROR(CheckControlIds(tokens, tokenizer));
  VNSA_RETURN_IF_ERROR(ReadTokensPerSecond(config, tokens));
  VNSA_ASSIGN_OR_RETURN(const int32_t vocab_size, RequireTokenId(config, "vocab_size"));
  if (tokenizer.id_limit() > vocab_size) {
    return ModelFileError(
        kConfigFile, absl::StrCat("vocab_size is ", vocab_size,
                                  ", but the tokenizer has ids up to ", tokenizer.id_limit() - 1));
  }
  if (HasModelFile(model_dir, kGenerationFile)) {
    VNSA_ASSIGN_OR_RETURN(const std::string generation_text,
                          ReadModelFile(model_dir, kGenerationFile, kMaxConfigBytes));
    VNSA_ASSIGN_OR_RETURN(const json generation, ParseModelJson(generation_text, kGenerationFile));
    VNSA_RETURN_IF_ERROR(ReadEndTokens(generation, kGenerationFile, chat.end_token_ids));
  }
  if (chat.end_token_ids.empty()) {
    VNSA_RETURN_IF_ERROR(ReadEndTokens(config, kConfigFile, chat.end_token_ids));
  }
  if (chat.end_token_ids.empty()) chat.end_token_ids = {tokens.im_end};
  return chat;
}

}  // namespace videonsa
