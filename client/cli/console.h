#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/style.h"

namespace videonsa::client {

/// What the two output streams are.
struct ConsoleOptions {
  bool stdout_is_terminal = false;
  bool stderr_is_terminal = false;
  bool colour = false;  ///< escape sequences allowed on stderr
  bool quiet = false;   ///< no notes, no progress; errors only
  int columns = 80;
};

/// Answers go to stdout; progress, notes, reports and errors go to stderr. The status line is one
/// line on stderr that is drawn again and again, and only on a terminal.
///
/// Threads: one.
class Console {
 public:
  explicit Console(const ConsoleOptions& options) : options_(options) {}
  ~Console() { ClearStatus(); }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  /// Replaces the status line; at most ten times a second unless `force`.
  void Status(const std::string& line, bool force = false);
  void ClearStatus();
  /// A line that stays, unless quiet.
  void Note(const std::string& text);
  /// "videonsa: TEXT" in red, always.
  void Error(const std::string& text);
  /// Writes to stdout at once. On a terminal control characters are replaced.
  void Answer(absl::string_view text);

  std::string Paint(Style style, absl::string_view text) const {
    return painter().Paint(style, text);
  }
  Painter painter() const { return Painter(options_.colour); }

  const ConsoleOptions& options() const { return options_; }

 private:
  const ConsoleOptions options_;
  bool status_shown_ = false;
  absl::Time last_status_ = absl::InfinitePast();
};

/// Looks at the streams. Colours: `choice` is "auto", "always" or "never"; auto means on a terminal
/// whose environment (main's third argument) has no NO_COLOR and no TERM=dumb.
ConsoleOptions DetectConsole(const std::string& choice, const char* const* environment);

}  // namespace videonsa::client
