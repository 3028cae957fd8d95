#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/text/prompt_layout.h"
#include "runtime/text/tokenizer.h"

namespace videonsa {

/// What a model folder says about prompts.
struct ChatConfig {
  ChatTokens tokens;
  /// Tokens that end an answer: generation_config.json, else config.json, else <|im_end|>.
  std::vector<int32_t> end_token_ids;
};

/// Reads config.json and generation_config.json (if present) of a model folder and checks them
/// against its tokenizer.
///
/// Errors: FAILED_PRECONDITION (MODEL_INVALID), naming the file: a missing or malformed field, a
///         control id that is not a special token of the tokenizer (text from outside could become
///         it), two equal control ids, a vocabulary smaller than the tokenizer's ids.
/// Source: preprocess-and-model sections 3.3 and 6.4; both config.json layouts.
absl::StatusOr<ChatConfig> ReadChatConfig(const std::string& model_dir, const Tokenizer& tokenizer);

}  // namespace videonsa
