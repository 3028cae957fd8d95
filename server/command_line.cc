#include "server/command_line.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/telemetry/metrics.h"
#include "server/access/access_rules.h"
#include "server/access/tls_files.h"
#include "server/nearest_name.h"
#include "server/option_row.h"
#include "server/yaml_reader.h"

namespace videonsa {
namespace {

constexpr char kConfig[] = "config";

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "OPTION_INVALID", message);
}

absl::Status Unknown(absl::string_view shown, absl::string_view name) {
  std::vector<std::string> names;
  if (shown != name) names.push_back(kConfig);  // not in a file
  for (const OptionRow& row : OptionRows()) names.push_back(row.name);
  return MakeError(absl::StatusCode::kInvalidArgument, "OPTION_UNKNOWN",
                   absl::StrCat("\"", shown.substr(0, 64), "\" is no option",
                                DidYouMean(name, names), "; see --help"));
}

// A switch of the command itself, which no file may hold.
bool* SwitchOf(CommandLine& line, absl::string_view argument) {
  if (argument == "--help" || argument == "-h") return &line.help;
  if (argument == "--version") return &line.version;
  if (argument == "--check-config") return &line.check_config;
  if (argument == "--print-options") return &line.print_options;
  return nullptr;
}

struct Argument {
  std::string name;
  std::string value;
};

// Splits the command line into switches and named values.
absl::StatusOr<std::vector<Argument>> Split(const std::vector<std::string>& words,
                                            CommandLine& line) {
  std::vector<Argument> arguments;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (bool* const on = SwitchOf(line, word)) {
      *on = true;
      continue;
    }
    const size_t equals = word.find('=');
    Argument argument;
    if (absl::StartsWith(word, "--")) argument.name = word.substr(2, equals - 2);
    const OptionRow* const row = FindOption(argument.name);
    if (row == nullptr && argument.name != kConfig) return Unknown(word, argument.name);
    if (equals != std::string::npos) {
      argument.value = word.substr(equals + 1);
    } else if (row != nullptr && row->flag) {
      argument.value = "true";
    } else if (i + 1 < words.size()) {
      argument.value = words[++i];
    } else {
      return Invalid(absl::StrCat("--", argument.name, " needs a value"));
    }
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

// A list stands for its values between commas.
absl::StatusOr<std::string> TextOf(const YamlValue& value) {
  switch (value.kind) {
    case YamlValue::Kind::kEmpty:
      return std::string();
    case YamlValue::Kind::kText:
      return value.text;
    case YamlValue::Kind::kMap:
      return Invalid("must be a value or a list, not a map");
    case YamlValue::Kind::kList:
      break;
  }
  std::vector<std::string> items;
  for (const YamlValue& item : value.items) {
    if (item.kind != YamlValue::Kind::kText) return Invalid("must be a list of values");
    items.push_back(item.text);
  }
  return absl::StrJoin(items, ",");
}

absl::Status ReadConfig(const std::string& path, ServerOptions& options) {
  VNSA_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  absl::StatusOr<YamlValue> root = ParseYaml(text);
  if (!root.ok()) return Invalid(absl::StrCat(path, ": ", root.status().message()));
  if (root->kind == YamlValue::Kind::kEmpty) return absl::OkStatus();
  if (root->kind != YamlValue::Kind::kMap) {
    return Invalid(absl::StrCat(path, ": must hold one \"option: value\" a line"));
  }
  for (const auto& [name, value] : root->fields) {
    const OptionRow* const row = FindOption(name);
    absl::StatusOr<std::string> written = TextOf(value);
    absl::Status status = row == nullptr ? Unknown(name, name)
                          : written.ok() ? row->set(options, *written)
                                         : written.status();
    if (status.ok()) continue;
    const std::optional<ErrorInfo> info = GetErrorInfo(status);
    return MakeError(status.code(), info ? info->reason : "OPTION_INVALID",
                     absl::StrCat(path, " line ", value.line, ": ", status.message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& words) {
  CommandLine line;
  VNSA_ASSIGN_OR_RETURN(const std::vector<Argument> arguments, Split(words, line));
  for (const Argument& argument : arguments) {
    if (argument.name != kConfig || argument.value.empty()) continue;
    VNSA_RETURN_IF_ERROR(ReadConfig(argument.value, line.options));
  }
  for (const Argument& argument : arguments) {
    if (argument.name == kConfig) continue;
    VNSA_RETURN_IF_ERROR(FindOption(argument.name)->set(line.options, argument.value));
  }
  return line;
}

absl::Status CheckOptions(const ServerOptions& options) {
  if (options.default_deadline > options.max_deadline) {
    return Invalid("--default-deadline must be at most --max-deadline");
  }
  if (options.clips.default_ttl > options.clips.max_ttl) {
    return Invalid("--clip-ttl must be at most --max-clip-ttl");
  }
  if (options.runtime.default_max_output_tokens > options.runtime.max_output_tokens) {
    return Invalid("--default-output-tokens must be at most --max-output-tokens");
  }
  if (options.listen.empty()) return Invalid("--listen must not be empty");
  VNSA_RETURN_IF_ERROR(CheckAdminAddress(options));
  MetricsRegistry unused;
  if (options.access.tls.enabled()) {
    VNSA_RETURN_IF_ERROR(TlsFiles::Open(options.access.tls, unused).status());
  }
  if (options.access.file.empty()) return absl::OkStatus();
  VNSA_ASSIGN_OR_RETURN(const std::string rules, ReadSmallFile(options.access.file));
  return AccessRules::Parse(rules).status();
}

OptionChanges ChangesOf(const ServerOptions& running, const ServerOptions& fresh) {
  OptionChanges changes{running, {}, {}};
  for (const OptionRow& row : OptionRows()) {
    const std::string value = row.get(fresh);
    if (value == row.get(running)) continue;
    // What `get` shows of a reloadable row, `set` reads: they are numbers and names.
    const bool taken = row.reload && row.set(changes.options, value).ok();
    (taken ? changes.taken : changes.waiting).push_back(row.name);
  }
  return changes;
}

std::string HelpText() {
  const ServerOptions defaults;
  std::string text =
      "videonsa-server: answers questions about videos over gRPC.\n\n"
      "Usage: videonsa-server [--config FILE] [--OPTION=VALUE]...\n\n"
      "  --config FILE\n      YAML with one \"option: value\" a line, the options below without "
      "their dashes; what stands on\n      the command line counts over it.\n"
      "  --check-config\n      Check the options and the files they name, say what is wrong and "
      "end.\n"
      "  --print-options\n      Print the table of options in Markdown.\n"
      "  --version\n  --help\n\nOptions:\n";
  for (const OptionRow& row : OptionRows()) {
    absl::StrAppendFormat(&text, "  --%s%s\n      %s\n      Range: %s. Default: %s.%s\n", row.name,
                          row.unit.empty() ? "" : absl::StrCat("  [", row.unit, "]"), row.meaning,
                          row.range, row.get(defaults), row.reload ? " Reloaded." : "");
  }
  absl::StrAppend(
      &text,
      "\nSignals: SIGTERM and SIGINT drain, a second one shortens that to 5 s. SIGHUP reads the "
      "configuration\nagain and takes over the options marked \"Reloaded\".\n"
      "Exit codes: 0 ended as asked, 1 a device was lost, 2 wrong usage, 3 the model cannot be "
      "loaded, 4 an address\ncannot be listened on, 5 the clip folder cannot be used.\n");
  return text;
}

std::string OptionsMarkdown() {
  const ServerOptions defaults;
  std::string text =
      "# Options of videonsa-server\n\n"
      "Written by `videonsa-server --print-options`; a test compares. In a file (`--config`) they "
      "stand without dashes.\n"
      "Those marked \"yes\" are taken over by a running server on SIGHUP.\n\n"
      "| Option | Unit | Range | Default | Reloaded | Effect |\n"
      "| --- | --- | --- | --- | --- | --- |\n";
  for (const OptionRow& row : OptionRows()) {
    absl::StrAppend(&text, "| `--", row.name, "` | ", row.unit, " | ", row.range, " | ",
                    row.get(defaults), " | ", row.reload ? "yes" : "", " | ", row.meaning, " |\n");
  }
  return text;
}

}  // namespace videonsa
