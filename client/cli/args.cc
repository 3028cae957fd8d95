#include "client/cli/args.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

const Flag* FindFlag(const CommandSpec& spec, const std::string& name, char letter) {
  for (const FlagGroup& group : spec.groups) {
    for (const Flag& flag : group.flags) {
      if (letter != 0 ? flag.letter == letter : flag.name == name) return &flag;
    }
  }
  return nullptr;
}

absl::Status UnknownFlag(const CommandSpec& spec, const std::string& word) {
  std::vector<std::string> names;
  for (const FlagGroup& group : spec.groups) {
    for (const Flag& flag : group.flags) names.push_back(absl::StrCat("--", flag.name));
  }
  const std::string near = Nearest(word, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag ", word, near.empty() ? "" : absl::StrCat("; did you mean ", near, "?")));
}

int EditDistance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1] ? 1 : 0)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string Quote(const std::string& flag, const std::string& text) {
  return absl::StrCat("--", flag, ": \"", text, "\"");
}

absl::Status CheckCounts(const CommandSpec& spec, const ParsedArgs& args) {
  const int count = static_cast<int>(args.arguments().size());
  if (count < spec.min_arguments) {
    return absl::InvalidArgumentError(
        absl::StrCat("usage: videonsa ", spec.name, " ", spec.arguments));
  }
  if (spec.max_arguments >= 0 && count > spec.max_arguments) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected word \"", args.arguments()[spec.max_arguments], "\"",
                     "; usage: videonsa ", spec.name, " ", spec.arguments));
  }
  return absl::OkStatus();
}

}  // namespace

std::string Nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  int best_distance = std::max<int>(2, static_cast<int>(word.size()) / 3) + 1;
  for (const std::string& candidate : known) {
    int distance = EditDistance(word, candidate);
    if (word.size() > 3 && absl::StartsWith(candidate, word)) distance = 1;
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string ParsedArgs::Get(const std::string& flag) const {
  const auto found = values_.find(flag);
  return found == values_.end() ? std::string() : found->second.back();
}

std::vector<std::string> ParsedArgs::All(const std::string& flag) const {
  const auto found = values_.find(flag);
  return found == values_.end() ? std::vector<std::string>() : found->second;
}

absl::StatusOr<double> ParsedArgs::Number(const std::string& flag, double fallback) const {
  if (!Has(flag)) return fallback;
  double value = 0;
  if (!absl::SimpleAtod(Get(flag), &value) || value != value) {
    return absl::InvalidArgumentError(absl::StrCat(Quote(flag, Get(flag)), " is not a number"));
  }
  return value;
}

absl::StatusOr<int64_t> ParsedArgs::Integer(const std::string& flag, int64_t fallback) const {
  if (!Has(flag)) return fallback;
  int64_t value = 0;
  if (!absl::SimpleAtoi(Get(flag), &value)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quote(flag, Get(flag)), " is not a whole number"));
  }
  return value;
}

absl::StatusOr<absl::Duration> ParsedArgs::Time(const std::string& flag,
                                                absl::Duration fallback) const {
  if (!Has(flag)) return fallback;
  absl::StatusOr<absl::Duration> value = ParseClipTime(Get(flag));
  if (!value.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", value.status().message()));
  }
  return value;
}

absl::StatusOr<ParsedArgs> ParseArgs(const CommandSpec& spec, absl::Span<const std::string> words) {
  ParsedArgs args;
  const auto add = [&](const std::string& flag, const std::string& value) {
    args.values_[flag].push_back(value);
    args.in_order_.emplace_back(flag, value);
  };
  bool flags_ended = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (flags_ended || word.size() < 2 || word[0] != '-') {
      add("", word);
      continue;
    }
    if (word == "--") {
      flags_ended = true;
      continue;
    }
    const size_t equals = word.find('=');
    const bool is_long = absl::StartsWith(word, "--");
    const std::string head = word.substr(0, equals);
    const Flag* flag = is_long            ? FindFlag(spec, head.substr(2), 0)
                       : head.size() == 2 ? FindFlag(spec, "", head[1])
                                          : nullptr;
    if (flag == nullptr) return UnknownFlag(spec, head);
    if (args.Has(flag->name) && !flag->repeated) {
      return absl::InvalidArgumentError(absl::StrCat("--", flag->name, " is given twice"));
    }
    if (flag->value.empty()) {
      if (equals != std::string::npos) {
        return absl::InvalidArgumentError(absl::StrCat("--", flag->name, " takes no value"));
      }
      add(flag->name, "");
    } else if (equals != std::string::npos) {
      add(flag->name, word.substr(equals + 1));
    } else if (i + 1 < words.size()) {
      add(flag->name, words[++i]);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag->name, " needs a value: --", flag->name, " ", flag->value));
    }
  }
  if (!args.Has("help")) {
    if (absl::Status status = CheckCounts(spec, args); !status.ok()) return status;
  }
  return args;
}

std::string HelpText(const CommandSpec& spec, int columns) {
  columns = std::clamp(columns, 50, 100);
  std::string out = absl::StrCat("videonsa ", spec.name, " ", spec.arguments, "\n\n");
  const std::string& about = spec.description.empty() ? spec.summary : spec.description;
  for (const std::string& line : WrapText(about, columns)) absl::StrAppend(&out, line, "\n");
  constexpr int kIndent = 28;
  for (const FlagGroup& group : spec.groups) {
    absl::StrAppend(&out, "\n", group.title, ":\n");
    for (const Flag& flag : group.flags) {
      std::string head = absl::StrCat(
          "  ", flag.letter != 0 ? absl::StrCat("-", std::string(1, flag.letter), ", ") : "", "--",
          flag.name, flag.value.empty() ? "" : absl::StrCat(" ", flag.value));
      if (DisplayWidth(head) > kIndent - 2) {
        absl::StrAppend(&out, head, "\n");
        head.clear();
      }
      for (const std::string& line : WrapText(flag.help, columns - kIndent)) {
        absl::StrAppend(&out, head, std::string(kIndent - DisplayWidth(head), ' '), line, "\n");
        head.clear();
      }
    }
  }
  if (!spec.examples.empty()) absl::StrAppend(&out, "\nExamples:\n");
  for (const auto& [what, command] : spec.examples) {
    absl::StrAppend(&out, "  # ", what, "\n  videonsa ", command, "\n");
  }
  return out;
}

}  // namespace videonsa::client
