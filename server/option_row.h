#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/options.h"

namespace videonsa {

/// One option: how it is called, what it takes and where its value lies.
struct OptionRow {
  std::string name;
  std::string unit;
  std::string range;
  std::string meaning;
  bool flag = false;  ///< may stand without a value
  /// Errors: INVALID_ARGUMENT (OPTION_INVALID) naming the option, the value and the range.
  std::function<absl::Status(ServerOptions&, absl::string_view)> set;
  std::function<std::string(const ServerOptions&)> get;
  bool reload = false;  ///< taken over by a running server
};

/// The one table of options, in the order of the help text.
const std::vector<OptionRow>& OptionRows();

/// The row named `name`, or null.
const OptionRow* FindOption(absl::string_view name);

}  // namespace videonsa
