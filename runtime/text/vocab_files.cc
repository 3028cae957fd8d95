#include "runtime/text/vocab_files.h"

#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status_macros.h"
#include "runtime/text/model_file.h"

namespace videonsa {

const char kQwen2SplitPattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

namespace {

using nlohmann::json;

constexpr char kVocabFile[] = "vocab.json";
constexpr char kMergesFile[] = "merges.txt";
constexpr char kConfigFile[] = "tokenizer_config.json";

// vocab.json is one flat object.
class VocabReader : public nlohmann::json_sax<json> {
 public:
  explicit VocabReader(TokenizerDefinition& definition) : definition_(definition) {}
  const std::string& problem() const { return problem_; }

  bool null() override { return NotAnId(); }
  bool boolean(bool) override { return NotAnId(); }
  bool number_float(double, const std::string&) override { return NotAnId(); }
  bool binary(binary_t&) override { return NotAnId(); }
  bool number_integer(number_integer_t) override { return NotAnId(); }
  bool string(std::string&) override { return NotAnId(); }
  bool start_array(size_t) override { return NotAnId(); }
  bool end_array() override { return NotAnId(); }
  bool end_object() override { return true; }

  bool number_unsigned(number_unsigned_t value) override {
    if (depth_ == 0 || value >= static_cast<number_unsigned_t>(kMaxTokenIds)) return NotAnId();
    definition_.vocab.emplace_back(std::move(key_), static_cast<int32_t>(value));
    return true;
  }
  bool key(std::string& value) override {
    key_ = std::move(value);
    return true;
  }
  bool start_object(size_t) override { return depth_++ == 0 || NotAnId(); }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    problem_ = absl::StrCat("not JSON at byte ", position);
    return false;
  }

 private:
  bool NotAnId() {
    problem_ = absl::StrCat("entry ", definition_.vocab.size(), " is not a token with an id below ",
                            kMaxTokenIds);
    return false;
  }

  TokenizerDefinition& definition_;
  int depth_ = 0;
  std::string key_;
  std::string problem_;
};

absl::Status ReadMerges(absl::string_view text, TokenizerDefinition& definition) {
  size_t line_number = 0;
  while (!text.empty()) {
    ++line_number;
    const size_t end = text.find('\n');
    absl::string_view line = text.substr(0, end);
    text.remove_prefix(end == absl::string_view::npos ? text.size() : end + 1);
    if (absl::EndsWith(line, "\r")) line.remove_suffix(1);
    if (line.empty() || (line_number == 1 && absl::StartsWith(line, "#version"))) continue;
    const size_t space = line.find(' ');
    if (space == absl::string_view::npos || line.find(' ', space + 1) != absl::string_view::npos) {
      return ModelFileError(kMergesFile,
                            absl::StrCat("line ", line_number, " is not a pair of tokens"));
    }
    definition.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return absl::OkStatus();
}

bool FlagOf(const json& entry, const char* key) {
  const auto it = entry.find(key);
  return it != entry.end() && it->is_boolean() && it->get<bool>();
}

absl::Status ReadAddedTokens(const json& config, TokenizerDefinition& definition) {
  const auto list = config.find("added_tokens_decoder");
  if (list == config.end()) return absl::OkStatus();
  if (!list->is_object())
    return ModelFileError(kConfigFile, "added_tokens_decoder is not an object");
  for (const auto& [key, entry] : list->items()) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || id < 0 || id >= kMaxTokenIds || !entry.is_object() ||
        !entry.contains("content") || !entry["content"].is_string()) {
      return ModelFileError(kConfigFile, absl::StrCat("added_tokens_decoder: entry \"",
                                                      key.substr(0, 32), "\" is not a token"));
    }
    if (FlagOf(entry, "lstrip") || FlagOf(entry, "rstrip") || FlagOf(entry, "single_word")) {
      return ModelFileError(kConfigFile,
                            absl::StrCat("added token ", id, ": strip flags are not supported"));
    }
    definition.added_tokens.push_back({entry["content"].get<std::string>(), id,
                                       FlagOf(entry, "special"), FlagOf(entry, "normalized")});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerDefinition> ReadVocabFiles(const std::string& dir) {
  TokenizerDefinition definition;
  definition.file = kVocabFile;
  definition.nfc = true;
  definition.split_patterns = {kQwen2SplitPattern};
  VNSA_ASSIGN_OR_RETURN(const std::string vocab,
                        ReadModelFile(dir, kVocabFile, kMaxTokenizerFileBytes));
  VocabReader reader(definition);
  if (!json::sax_parse(vocab, &reader)) return ModelFileError(kVocabFile, reader.problem());
  VNSA_ASSIGN_OR_RETURN(const std::string merges,
                        ReadModelFile(dir, kMergesFile, kMaxTokenizerFileBytes));
  VNSA_RETURN_IF_ERROR(ReadMerges(merges, definition));
  if (HasModelFile(dir, kConfigFile)) {
    VNSA_ASSIGN_OR_RETURN(const std::string text,
                          ReadModelFile(dir, kConfigFile, kMaxTokenizerFileBytes));
    VNSA_ASSIGN_OR_RETURN(const json config, ParseModelJson(text, kConfigFile));
    VNSA_RETURN_IF_ERROR(ReadAddedTokens(config, definition));
  }
  return definition;
}

}  // namespace videonsa
