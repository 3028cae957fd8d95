#include "client/eval/dataset.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/channel.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

using google::protobuf::Value;

std::string TextOf(const Value& value) {
  if (value.kind_case() == Value::kStringValue) return value.string_value();
  if (value.kind_case() == Value::kNumberValue &&
      value.number_value() == std::floor(value.number_value()) &&
      std::abs(value.number_value()) < 1e15) {
    return absl::StrCat(static_cast<int64_t>(value.number_value()));
  }
  if (value.kind_case() == Value::kNumberValue) return absl::StrCat(value.number_value());
  return "";
}

}  // namespace

absl::StatusOr<std::vector<DatasetRecord>> ReadDataset(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  std::vector<DatasetRecord> records;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    absl::StatusOr<Value> value = ParseJson(line);
    if (!value.ok() || !value->has_struct_value()) {
      return absl::InvalidArgumentError(absl::StrCat(path, " line ", number, " is no JSON object"));
    }
    records.push_back({number, *std::move(value)});
  }
  if (records.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " holds no record"));
  return records;
}

std::string ResolveClip(const std::string& dataset_path, const std::string& clip) {
  if (absl::StartsWith(clip, "clips/") || absl::StartsWith(clip, "https://") ||
      absl::StartsWith(clip, "http://") || absl::StartsWith(clip, "/")) {
    return clip;
  }
  const size_t slash = dataset_path.rfind('/');
  return slash == std::string::npos ? clip : absl::StrCat(dataset_path.substr(0, slash + 1), clip);
}

std::string TextField(const Value& record, const std::string& key) {
  const Value* field = Member(record, key);
  return field == nullptr ? "" : TextOf(*field);
}

std::vector<std::string> ListField(const Value& record, const std::string& key) {
  std::vector<std::string> texts;
  const Value* field = Member(record, key);
  if (field == nullptr) return texts;
  for (const Value& value : field->list_value().values()) texts.push_back(TextOf(value));
  return texts;
}

}  // namespace videonsa::client
