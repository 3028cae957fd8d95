#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/options.h"

namespace videonsa {

/// What the command line asks for.
struct CommandLine {
  ServerOptions options;
  bool help = false;
  bool version = false;
  bool check_config = false;
  bool print_options = false;
};

/// Reads `--name=value`, `--name value` and `--flag`, and before them the file that --config names:
/// YAML, one option a line under the same names, lists as lists. What the command line says counts
/// over the file.
///
/// Errors: INVALID_ARGUMENT naming the option, the value and the range (and the line of the file);
///         unknown options with the nearest name; NOT_FOUND (FILE_UNREADABLE).
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments);

/// Whether the options fit together and the files they name can be read.
/// Errors: INVALID_ARGUMENT (OPTION_INVALID, ACCESS_FILE_INVALID, TLS_FILE_INVALID), NOT_FOUND
///         (FILE_UNREADABLE).
absl::Status CheckOptions(const ServerOptions& options);

/// What `fresh` changes against `running`.
struct OptionChanges {
  ServerOptions options;             ///< `running` with what can be taken over
  std::vector<std::string> taken;    ///< names
  std::vector<std::string> waiting;  ///< names of those that need a new start
};
OptionChanges ChangesOf(const ServerOptions& running, const ServerOptions& fresh);

/// Every option with its unit, range, default and meaning.
std::string HelpText();

/// The options' table in Markdown: server/OPTIONS.md.
std::string OptionsMarkdown();

}  // namespace videonsa
