#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace videonsa::client {

/// One flag of a command.
struct Flag {
  std::string name;       ///< without dashes
  std::string value;      ///< placeholder shown in help; empty: a switch
  std::string help;       ///< one or two sentences, no full stop at the end
  char letter = 0;        ///< short form, 0 if none
  bool repeated = false;  ///< may stand several times
};

/// Flags under one heading of the help text.
struct FlagGroup {
  std::string title;
  std::vector<Flag> flags;
};

/// A command as its help text tells it.
struct CommandSpec {
  std::string name;         ///< "ask", "clips list"
  std::string arguments;    ///< "CLIP... -q TEXT"
  std::string summary;      ///< one line
  std::string description;  ///< paragraphs; wrapped to the terminal
  std::vector<FlagGroup> groups;
  /// (what it does, command line without "videonsa").
  std::vector<std::pair<std::string, std::string>> examples;
  int min_arguments = 0;
  int max_arguments = 0;  ///< -1: any number
};

/// What stood on the command line.
///
/// Getters of numbers return INVALID_ARGUMENT naming the flag when the text is no number.
class ParsedArgs {
 public:
  bool Has(const std::string& flag) const { return values_.count(flag) > 0; }
  /// The last value; empty if the flag is missing.
  std::string Get(const std::string& flag) const;
  std::vector<std::string> All(const std::string& flag) const;
  absl::StatusOr<double> Number(const std::string& flag, double fallback) const;
  absl::StatusOr<int64_t> Integer(const std::string& flag, int64_t fallback) const;
  absl::StatusOr<absl::Duration> Time(const std::string& flag, absl::Duration fallback) const;

  /// Words that are no flags, and (flag, value) pairs, in the order of the command line; words have
  /// an empty flag.
  const std::vector<std::pair<std::string, std::string>>& in_order() const { return in_order_; }
  std::vector<std::string> arguments() const { return All(""); }

 private:
  friend absl::StatusOr<ParsedArgs> ParseArgs(const CommandSpec& spec,
                                              absl::Span<const std::string> words);
  std::map<std::string, std::vector<std::string>> values_;
  std::vector<std::pair<std::string, std::string>> in_order_;
};

/// Reads "--flag value", "--flag=value", "-f value" and plain words; "--" ends the flags.
///
/// Errors: INVALID_ARGUMENT: unknown flag (with the nearest known one), missing value, a flag twice
///         that may stand once, too few or too many words.
absl::StatusOr<ParsedArgs> ParseArgs(const CommandSpec& spec, absl::Span<const std::string> words);

/// The help text of a command, wrapped to `columns`.
std::string HelpText(const CommandSpec& spec, int columns);

/// The entry of `known` with the fewest edits to `word`, or empty if none is near.
std::string Nearest(const std::string& word, const std::vector<std::string>& known);

}  // namespace videonsa::client
