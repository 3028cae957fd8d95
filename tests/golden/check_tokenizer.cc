// Vectors of text and ids in three forms: JSON lists of {"text", "ids"[, "tokens", "decoded"]},
// JSON lists of added tokens {"id", "content", "special"}, and pairs X.inp / X.out with inputs
// separated by a marker line and one line of ids each.
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/text/byte_alphabet.h"
#include "runtime/text/nfc.h"
#include "runtime/text/tokenizer.h"
#include "tests/golden/checks.h"
#include "tests/golden/tokenizer_files.h"

namespace videonsa::golden {
namespace {

using nlohmann::json;

constexpr char kInputMarker[] = "\n__ggml_vocab_test__\n";

void CheckVector(const std::string& name, const std::string& text,
                 const std::vector<int64_t>& expected, const Tokenizer& tokenizer,
                 Reporter& reporter) {
  const auto ids = tokenizer.EncodeWithSpecial(text);
  if (!reporter.ExpectOk(name, "ids", ids.status())) return;
  reporter.ExpectEqual(name, "ids", *ids, expected);
  std::string storage;
  reporter.ExpectEqualText(name, "decoded back", tokenizer.Decode(*ids, /*keep_special=*/true),
                           NormalizeNfc(text, storage));
}

void CheckJsonVector(const std::string& name, const json& item, const Tokenizer& tokenizer,
                     Reporter& reporter) {
  const std::vector<int64_t> expected = IntegersOf(item["ids"]);
  CheckVector(name, item["text"].get<std::string>(), expected, tokenizer, reporter);
  const std::vector<int32_t> ids(expected.begin(), expected.end());
  if (item.contains("decoded") && item["decoded"].is_string()) {
    reporter.ExpectEqualText(name, "decoded", tokenizer.Decode(ids, /*keep_special=*/true),
                             item["decoded"].get<std::string>());
  }
  if (item.contains("tokens") && item["tokens"].is_array()) {
    json tokens = json::array();
    for (const int32_t id : ids) {
      const absl::string_view bytes = tokenizer.BytesOf(id);
      // Added tokens are listed as they are, not in the byte alphabet.
      const bool added = tokenizer.AddedTokenId(bytes) == id;
      tokens.push_back(added ? std::string(bytes) : AlphabetTextOf(bytes));
    }
    reporter.ExpectEqualText(name, "tokens", tokens.dump(), item["tokens"].dump());
  }
}

void CheckAddedToken(const std::string& name, const json& item, const Tokenizer& tokenizer,
                     Reporter& reporter) {
  const std::string content = item["content"].get<std::string>();
  const int64_t id = item["id"].get<int64_t>();
  const bool special = item["special"].get<bool>();
  const auto with_special = tokenizer.EncodeWithSpecial(content);
  const auto as_text = tokenizer.Encode(content);
  if (!reporter.ExpectOk(name, content, with_special.status()) ||
      !reporter.ExpectOk(name, content, as_text.status())) {
    return;
  }
  reporter.ExpectEqual(name, content, *with_special, {id});
  reporter.Record(tokenizer.IsSpecial(id) == special, name, content, "special flag");
  if (special) {
    bool control = false;
    for (const int32_t text_id : *as_text) control |= tokenizer.IsSpecial(text_id);
    reporter.Record(!control, name, content, "text never becomes a control token");
  }
}

bool IsList(const json& list, std::initializer_list<const char*> keys) {
  if (!list.is_array() || list.empty()) return false;
  for (const json& item : list) {
    for (const char* key : keys) {
      if (!item.is_object() || !item.contains(key)) return false;
    }
  }
  return true;
}

void CheckJsonFile(const std::string& path, CaseTokenizers& tokenizers, Reporter& reporter) {
  // Model files are large and hold no vectors.
  std::error_code error;
  if (std::filesystem::file_size(path, error) > (64u << 20) ||
      std::filesystem::path(path).filename() == "tokenizer.json") {
    return;
  }
  const auto file = ReadJson(path);
  if (!file.ok()) return;
  const json& list = file->is_object() && file->contains("cases") ? (*file)["cases"] : *file;
  const std::string stem = std::filesystem::path(path).stem().string();
  const bool vectors = IsList(list, {"text", "ids"});
  const bool added_tokens = IsList(list, {"id", "content", "special"});
  if (!vectors && !added_tokens) return;
  const CaseTokenizers::Loaded* const loaded = tokenizers.For(path, *file);
  if (loaded == nullptr) return;
  const Tokenizer& tokenizer = *loaded->tokenizer;
  for (size_t i = 0; i < list.size(); ++i) {
    const json& item = list[i];
    if (vectors && item["text"].is_string() && item["ids"].is_array()) {
      const std::string name = item.contains("name") && item["name"].is_string()
                                   ? item["name"].get<std::string>()
                                   : absl::StrCat(i);
      CheckJsonVector(absl::StrCat(stem, "/", name), item, tokenizer, reporter);
    } else if (added_tokens && item["id"].is_number_integer() && item["content"].is_string() &&
               item["special"].is_boolean()) {
      CheckAddedToken(stem, item, tokenizer, reporter);
    }
  }
}

void CheckInputOutput(const std::string& path, CaseTokenizers& tokenizers, Reporter& reporter) {
  const CaseTokenizers::Loaded* const loaded = tokenizers.For(path, json());
  if (loaded == nullptr) return;
  const std::string stem = std::filesystem::path(path).stem().string();
  const auto inputs = ReadFile(path);
  const auto outputs = ReadFile(std::filesystem::path(path).replace_extension(".out").string());
  if (!reporter.ExpectOk(stem, "inputs", inputs.status()) ||
      !reporter.ExpectOk(stem, "outputs", outputs.status())) {
    return;
  }
  std::vector<std::string> texts = absl::StrSplit(*inputs, kInputMarker);
  std::vector<std::string> lines = absl::StrSplit(*outputs, '\n');
  if (!texts.empty() && texts.back().empty()) texts.pop_back();
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  if (texts.size() != lines.size()) {
    reporter.Record(false, stem, "vectors",
                    absl::StrCat(texts.size(), " inputs, ", lines.size(), " outputs"));
    return;
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<int64_t> expected;
    for (absl::string_view word : absl::StrSplit(lines[i], ' ', absl::SkipWhitespace())) {
      expected.push_back(-1);
      (void)absl::SimpleAtoi(word, &expected.back());  // -1 matches no id
    }
    CheckVector(absl::StrCat(stem, "/", i), texts[i], expected, *loaded->tokenizer, reporter);
  }
}

}  // namespace

void CheckTokenizer(const GoldenOptions& options, Reporter& reporter) {
  CaseTokenizers tokenizers(options, reporter);
  for (const std::string& path : FindFiles(options.dir, ".json")) {
    CheckJsonFile(path, tokenizers, reporter);
  }
  for (const std::string& path : FindFiles(options.dir, ".inp")) {
    CheckInputOutput(path, tokenizers, reporter);
  }
}

}  // namespace videonsa::golden
