#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "runtime/text/tokenizer_definition.h"

namespace videonsa {

/// Reads the older form of a Qwen2 tokenizer: vocab.json, merges.txt and, if present, the added
/// tokens of tokenizer_config.json (added_tokens_decoder). Normalisation and split pattern are
/// those of Qwen2.
///
/// Errors: FAILED_PRECONDITION (MODEL_INVALID), naming the file.
absl::StatusOr<TokenizerDefinition> ReadVocabFiles(const std::string& dir);

}  // namespace videonsa
