#include "server/yaml_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "server/clip_store/storage_dir.h"

namespace videonsa {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxBytes = 1 << 20;

absl::Status Invalid(int line, absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "YAML_INVALID",
                   absl::StrCat("line ", line, ": ", what));
}

// Builds values from the parser's events. The library's own tree is not used: it would follow
// aliases and take a key twice.
class Builder : public YAML::EventHandler {
 public:
  const absl::Status& status() const { return status_; }
  YamlValue Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string&) override {
    Fail(mark, "anchors are not taken");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(mark, "aliases are not taken");
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    Add(mark, YamlValue::Kind::kEmpty, "");
  }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                const std::string& value) override {
    // A plain "~" or nothing arrives as OnNull.
    Add(mark, YamlValue::Kind::kText, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    Open(mark, YamlValue::Kind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Open(mark, YamlValue::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    YamlValue value;
    std::string key;
    bool has_key = false;
  };

  void Fail(const YAML::Mark& mark, absl::string_view what) {
    if (status_.ok()) status_ = Invalid(mark.line + 1, what);
  }

  void Open(const YAML::Mark& mark, YamlValue::Kind kind) {
    if (static_cast<int>(levels_.size()) >= kMaxDepth) {
      Fail(mark, absl::StrCat("more than ", kMaxDepth, " levels"));
    }
    if (NeedsKey()) Fail(mark, "a key must be text");
    Level level;
    level.value.kind = kind;
    level.value.line = mark.line + 1;
    levels_.push_back(std::move(level));
  }

  void Close() {
    YamlValue value = std::move(levels_.back().value);
    levels_.pop_back();
    Put(std::move(value));
  }

  void Add(const YAML::Mark& mark, YamlValue::Kind kind, const std::string& text) {
    if (NeedsKey()) {
      Level& level = levels_.back();
      if (kind != YamlValue::Kind::kText) return Fail(mark, "a key must be text");
      if (level.value.Find(text) != nullptr) {
        Fail(mark, absl::StrCat("\"", text.substr(0, 64), "\" stands twice"));
      }
      level.key = text;
      level.has_key = true;
      return;
    }
    YamlValue value;
    value.kind = kind;
    value.line = mark.line + 1;
    value.text = text;
    Put(std::move(value));
  }

  void Put(YamlValue value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return;
    }
    Level& level = levels_.back();
    if (level.value.kind == YamlValue::Kind::kList) {
      level.value.items.push_back(std::move(value));
    } else {
      level.value.fields.emplace_back(std::move(level.key), std::move(value));
      level.has_key = false;
    }
  }

  bool NeedsKey() const {
    return !levels_.empty() && levels_.back().value.kind == YamlValue::Kind::kMap &&
           !levels_.back().has_key;
  }

  std::vector<Level> levels_;
  YamlValue root_;
  absl::Status status_;
};

}  // namespace

const YamlValue* YamlValue::Find(absl::string_view name) const {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [name](const auto& field) { return field.first == name; });
  return found == fields.end() ? nullptr : &found->second;
}

absl::StatusOr<YamlValue> ParseYaml(const std::string& text) {
  if (text.size() > kMaxBytes) {
    return Invalid(1, absl::StrCat(text.size(), " bytes, limit ", kMaxBytes));
  }
  try {
    std::istringstream in(text);
    YAML::Parser parser(in);
    Builder builder;
    if (!parser.HandleNextDocument(builder)) return YamlValue();
    if (!builder.status().ok()) return builder.status();
    Builder second;
    if (parser.HandleNextDocument(second)) return Invalid(1, "more than one document");
    return builder.Take();
  } catch (const YAML::Exception& error) {
    return Invalid(error.mark.line + 1, error.msg);
  }
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  const auto unreadable = [&path](absl::string_view why) {
    return MakeError(absl::StatusCode::kNotFound, "FILE_UNREADABLE",
                     absl::StrCat("cannot read ", path, ": ", why));
  };
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return unreadable(strerror(errno));
  std::string content(kMaxBytes + 1, '\0');
  size_t size = 0;
  while (size < content.size()) {
    const ssize_t got = read(file.get(), content.data() + size, content.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return unreadable(strerror(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kMaxBytes) return unreadable(absl::StrCat("more than ", kMaxBytes, " bytes"));
  content.resize(size);
  return content;
}

absl::StatusOr<YamlValue> ReadYamlFile(const std::string& path) {
  VNSA_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  return ParseYaml(text);
}

}  // namespace videonsa
