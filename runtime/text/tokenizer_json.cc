#include "runtime/text/tokenizer_json.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

using nlohmann::json;

constexpr char kFile[] = "tokenizer.json";
constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxOtherValues = 4u << 20;  // besides vocabulary and merges

// The regular expression that a ByteLevel step applies by itself (use_regex).
constexpr char kByteLevelPattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// Takes model.vocab and model.merges straight into a definition, so that a file of any content
// needs little more memory than its text, and builds a tree of everything else.
class DefinitionReader : public nlohmann::json_sax<json> {
 public:
  explicit DefinitionReader(TokenizerDefinition& definition) : definition_(definition) {}

  const std::string& problem() const { return problem_; }
  const json& tree() const { return tree_; }
  bool saw_vocab() const { return saw_vocab_; }
  bool saw_merges() const { return saw_merges_; }

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_float(double value, const std::string&) override { return Value(value); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool number_integer(number_integer_t value) override { return Value(value); }

  bool number_unsigned(number_unsigned_t value) override {
    if (mode_ != kVocab) return Value(value);
    if (value >= static_cast<number_unsigned_t>(kMaxTokenIds)) {
      return Fail(absl::StrCat("token id ", value, " is not below ", kMaxTokenIds));
    }
    definition_.vocab.emplace_back(std::move(key_), static_cast<int32_t>(value));
    return true;
  }

  bool string(std::string& value) override {
    if (mode_ == kMergePair) {
      merge_pair_.push_back(std::move(value));
      return merge_pair_.size() <= 2 || Fail(MergeProblem());
    }
    if (mode_ != kMerges) return Value(std::move(value));
    const size_t space = value.find(' ');
    if (space == std::string::npos || value.find(' ', space + 1) != std::string::npos) {
      return Fail(MergeProblem());
    }
    definition_.merges.emplace_back(value.substr(0, space), value.substr(space + 1));
    return true;
  }

  bool key(std::string& value) override {
    if (mode_ == kTree && open_.back()->contains(value)) return Fail("key occurs twice: " + value);
    key_ = std::move(value);
    return true;
  }

  bool start_object(size_t) override {
    if (mode_ == kTree && InModel() && key_ == "vocab") {
      saw_vocab_ = true;
      mode_ = kVocab;
      (*open_.back())[key_] = true;
      return true;
    }
    return Open(json::object());
  }

  bool end_object() override {
    if (mode_ == kVocab) {
      mode_ = kTree;
      return true;
    }
    open_.pop_back();
    return true;
  }

  bool start_array(size_t) override {
    if (mode_ == kMerges) {
      mode_ = kMergePair;
      merge_pair_.clear();
      return true;
    }
    if (mode_ == kTree && InModel() && key_ == "merges") {
      saw_merges_ = true;
      mode_ = kMerges;
      (*open_.back())[key_] = true;
      return true;
    }
    return Open(json::array());
  }

  bool end_array() override {
    if (mode_ == kMergePair) {
      mode_ = kMerges;
      if (merge_pair_.size() != 2) return Fail(MergeProblem());
      definition_.merges.emplace_back(std::move(merge_pair_[0]), std::move(merge_pair_[1]));
      return true;
    }
    if (mode_ == kMerges) {
      mode_ = kTree;
      return true;
    }
    open_.pop_back();
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return Fail(absl::StrCat("not JSON at byte ", position));
  }

 private:
  enum Mode { kTree, kVocab, kMerges, kMergePair };

  bool Fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }

  std::string MergeProblem() const {
    return absl::StrCat("merge ", definition_.merges.size(), " is not a pair of tokens");
  }

  bool InModel() const { return open_.size() == 2 && in_model_; }

  json* Attach(json value) {
    if (open_.empty()) {
      tree_ = std::move(value);
      return &tree_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    json& slot = (*open_.back())[key_];
    slot = std::move(value);
    return &slot;
  }

  bool Value(json value) {
    if (mode_ == kVocab) return Fail("the id of token \"" + key_ + "\" is not a whole number");
    if (mode_ != kTree) return Fail(MergeProblem());
    if (++num_values_ > kMaxOtherValues) return Fail("too many values");
    Attach(std::move(value));
    return true;
  }

  bool Open(json container) {
    if (mode_ == kVocab) return Fail("the id of token \"" + key_ + "\" is not a whole number");
    if (mode_ != kTree) return Fail(MergeProblem());
    if (open_.size() >= kMaxDepth) return Fail(absl::StrCat("nested deeper than ", kMaxDepth));
    if (++num_values_ > kMaxOtherValues) return Fail("too many values");
    if (open_.size() == 1) in_model_ = key_ == "model" && container.is_object();
    open_.push_back(Attach(std::move(container)));
    return true;
  }

  TokenizerDefinition& definition_;
  Mode mode_ = kTree;
  json tree_;
  // Containers that are open, outermost first. A pointer stays valid while its container is open,
  // because only the innermost one grows.
  std::vector<json*> open_;
  bool in_model_ = false;  // the container at depth 2 is the value of "model"
  std::string key_;
  std::vector<std::string> merge_pair_;
  size_t num_values_ = 0;
  bool saw_vocab_ = false, saw_merges_ = false;
  std::string problem_;
};

absl::Status Error(absl::string_view problem) { return ModelFileError(kFile, problem); }

const json* Find(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<bool> FlagOf(const json& object, const char* key, bool default_value) {
  const json* value = Find(object, key);
  if (value == nullptr) return default_value;
  if (!value->is_boolean()) return Error(absl::StrCat(key, " is not true or false"));
  return value->get<bool>();
}

std::string TypeOf(const json& object) {
  const json* type = Find(object, "type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : "";
}

absl::Status ReadAddedTokens(const json& tree, TokenizerDefinition& definition) {
  const json* list = Find(tree, "added_tokens");
  if (list == nullptr) return absl::OkStatus();
  if (!list->is_array()) return Error("added_tokens is not a list");
  for (size_t i = 0; i < list->size(); ++i) {
    const json& entry = (*list)[i];
    const json *id = Find(entry, "id"), *content = Find(entry, "content");
    const std::string name = absl::StrCat("added_tokens[", i, "]");
    if (id == nullptr || !id->is_number_unsigned() || content == nullptr || !content->is_string()) {
      return Error(absl::StrCat(name, " has no id or no content"));
    }
    if (id->get<uint64_t>() >= static_cast<uint64_t>(kMaxTokenIds)) {
      return Error(absl::StrCat(name, " has id ", id->get<uint64_t>(), ", limit ", kMaxTokenIds));
    }
    for (const char* unsupported : {"lstrip", "rstrip", "single_word"}) {
      VNSA_ASSIGN_OR_RETURN(const bool flag, FlagOf(entry, unsupported, false));
      if (flag) return Error(absl::StrCat(name, ": ", unsupported, " is not supported"));
    }
    AddedToken token;
    token.content = content->get<std::string>();
    token.id = id->get<int32_t>();
    VNSA_ASSIGN_OR_RETURN(token.special, FlagOf(entry, "special", false));
    VNSA_ASSIGN_OR_RETURN(token.normalized, FlagOf(entry, "normalized", !token.special));
    definition.added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status ReadNormalizer(const json* step, TokenizerDefinition& definition) {
  if (step == nullptr) return absl::OkStatus();
  const std::string type = TypeOf(*step);
  if (type == "NFC") {
    definition.nfc = true;
    return absl::OkStatus();
  }
  const json* inner = Find(*step, "normalizers");
  if (type != "Sequence" || inner == nullptr || !inner->is_array()) {
    return Error(absl::StrCat("normalizer type \"", type, "\" is not supported"));
  }
  for (const json& item : *inner) VNSA_RETURN_IF_ERROR(ReadNormalizer(&item, definition));
  return absl::OkStatus();
}

std::string QuoteForRegex(const std::string& text) {
  std::string quoted;
  for (const char c : text) {
    if (absl::ascii_ispunct(c) || absl::ascii_isspace(c)) quoted += '\\';
    quoted += c;
  }
  return quoted;
}

absl::Status ReadSplit(const json& step, TokenizerDefinition& definition) {
  VNSA_ASSIGN_OR_RETURN(const bool invert, FlagOf(step, "invert", false));
  const json *behavior = Find(step, "behavior"), *pattern = Find(step, "pattern");
  if (invert || behavior == nullptr || *behavior != "Isolated") {
    return Error("pre_tokenizer Split: only behavior Isolated, not inverted, is supported");
  }
  const json* regex = pattern == nullptr ? nullptr : Find(*pattern, "Regex");
  const json* literal = pattern == nullptr ? nullptr : Find(*pattern, "String");
  if (regex != nullptr && regex->is_string()) {
    definition.split_patterns.push_back(regex->get<std::string>());
  } else if (literal != nullptr && literal->is_string()) {
    definition.split_patterns.push_back(QuoteForRegex(literal->get<std::string>()));
  } else {
    return Error("pre_tokenizer Split has no pattern");
  }
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const json& step, bool& byte_level, TokenizerDefinition& definition) {
  const std::string type = TypeOf(step);
  if (byte_level) return Error("pre_tokenizer: nothing may follow ByteLevel");
  if (type == "ByteLevel") {
    VNSA_ASSIGN_OR_RETURN(const bool add_space, FlagOf(step, "add_prefix_space", true));
    VNSA_ASSIGN_OR_RETURN(const bool use_regex, FlagOf(step, "use_regex", true));
    if (add_space) return Error("pre_tokenizer ByteLevel: add_prefix_space is not supported");
    if (use_regex) definition.split_patterns.push_back(kByteLevelPattern);
    byte_level = true;
    return absl::OkStatus();
  }
  if (type == "Split") return ReadSplit(step, definition);
  const json* inner = Find(step, "pretokenizers");
  if (type != "Sequence" || inner == nullptr || !inner->is_array()) {
    return Error(absl::StrCat("pre_tokenizer type \"", type, "\" is not supported"));
  }
  for (const json& item : *inner) {
    VNSA_RETURN_IF_ERROR(ReadPreTokenizer(item, byte_level, definition));
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const json& model, TokenizerDefinition& definition) {
  const json* type = Find(model, "type");
  if (type != nullptr && *type != "BPE") return Error("model type is not BPE");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json* value = Find(model, affix);
    if (value != nullptr && *value != "") {
      return Error(absl::StrCat("model: ", affix, " is not supported"));
    }
  }
  const json* dropout = Find(model, "dropout");
  if (dropout != nullptr && *dropout != 0.0) return Error("model: dropout is not supported");
  VNSA_ASSIGN_OR_RETURN(definition.ignore_merges, FlagOf(model, "ignore_merges", false));
  return absl::OkStatus();
}

bool HasByteLevelDecoder(const json& step) {
  if (TypeOf(step) == "ByteLevel") return true;
  const json* inner = Find(step, "decoders");
  return inner != nullptr && inner->is_array() && inner->size() == 1 &&
         HasByteLevelDecoder((*inner)[0]);
}

}  // namespace

absl::StatusOr<TokenizerDefinition> ParseTokenizerJson(absl::string_view text) {
  if (static_cast<int64_t>(text.size()) > kMaxTokenizerFileBytes) {
    return Error(absl::StrCat(text.size(), " bytes, limit ", kMaxTokenizerFileBytes));
  }
  TokenizerDefinition definition;
  definition.file = kFile;
  DefinitionReader reader(definition);
  if (!json::sax_parse(text.begin(), text.end(), &reader)) {
    return Error(reader.problem().empty() ? "not JSON" : reader.problem());
  }
  const json& tree = reader.tree();
  const json* model = Find(tree, "model");
  if (model == nullptr || !reader.saw_vocab()) return Error("no model.vocab object");
  if (!reader.saw_merges()) return Error("no model.merges list");
  VNSA_RETURN_IF_ERROR(ReadModel(*model, definition));
  VNSA_RETURN_IF_ERROR(ReadAddedTokens(tree, definition));
  VNSA_RETURN_IF_ERROR(ReadNormalizer(Find(tree, "normalizer"), definition));
  bool byte_level = false;
  if (const json* step = Find(tree, "pre_tokenizer")) {
    VNSA_RETURN_IF_ERROR(ReadPreTokenizer(*step, byte_level, definition));
  }
  if (!byte_level) return Error("pre_tokenizer has no ByteLevel step");
  const json* decoder = Find(tree, "decoder");
  if (decoder == nullptr || !HasByteLevelDecoder(*decoder))
    return Error("decoder is not ByteLevel");
  return definition;
}

}  // namespace videonsa
