#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/openai/front.h"

namespace videonsa::openai {

/// What the command line asks for.
struct CommandLine {
  FrontOptions options;
  bool help = false;
  bool version = false;
};

/// Reads "--flag VALUE" and "--flag=VALUE".
/// Errors: INVALID_ARGUMENT naming the flag, its value and its range.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& words);

/// Every flag with unit, default and range.
std::string HelpText();

}  // namespace videonsa::openai
