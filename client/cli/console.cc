#include "client/cli/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

constexpr absl::Duration kStatusInterval = absl::Milliseconds(100);

void Write(std::FILE* stream, absl::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

}  // namespace

void Console::Status(const std::string& line, bool force) {
  if (!options_.stderr_is_terminal || options_.quiet) return;
  const absl::Time now = absl::Now();
  if (!force && now - last_status_ < kStatusInterval) return;
  last_status_ = now;
  status_shown_ = true;
  Write(stderr, absl::StrCat("\r\x1b[K", line));
}

void Console::ClearStatus() {
  if (!status_shown_) return;
  status_shown_ = false;
  last_status_ = absl::InfinitePast();
  Write(stderr, "\r\x1b[K");
}

void Console::Note(const std::string& text) {
  if (options_.quiet) return;
  ClearStatus();
  Write(stderr, absl::StrCat(text, "\n"));
}

void Console::Error(const std::string& text) {
  ClearStatus();
  Write(stderr, absl::StrCat(Paint(Style::kRed, "videonsa:"), " ", text, "\n"));
}

void Console::Answer(absl::string_view text) {
  ClearStatus();
  Write(stdout, options_.stdout_is_terminal ? PrintableText(text) : std::string(text));
}

ConsoleOptions DetectConsole(const std::string& choice, const char* const* environment) {
  ConsoleOptions options;
  options.stdout_is_terminal = isatty(STDOUT_FILENO) == 1;
  options.stderr_is_terminal = isatty(STDERR_FILENO) == 1;
  bool wanted = options.stderr_is_terminal;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const absl::string_view entry(*environment);
    const bool no_colour = absl::StartsWith(entry, "NO_COLOR=") && entry.size() > 9;
    if (no_colour || entry == "TERM=dumb") wanted = false;
  }
  options.colour = choice == "always" || (choice != "never" && wanted);
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) {
    options.columns = size.ws_col;
  }
  return options;
}

}  // namespace videonsa::client
