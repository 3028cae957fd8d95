#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace videonsa {

class MetricsRegistry;

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Lower-case name: "debug", "info", "warning" or "error".
const char* LogLevelName(LogLevel level);

/// The level named `name`; returns false if there is none.
bool ParseLogLevel(absl::string_view name, LogLevel* level);

/// A typed value of a log line. Text is escaped and cut at 256 bytes.
class LogField {
 public:
  LogField(absl::string_view key, absl::string_view text);
  LogField(absl::string_view key, const char* text) : LogField(key, absl::string_view(text)) {}
  LogField(absl::string_view key, const std::string& text)
      : LogField(key, absl::string_view(text)) {}
  LogField(absl::string_view key, int64_t number);
  LogField(absl::string_view key, int number) : LogField(key, static_cast<int64_t>(number)) {}
  LogField(absl::string_view key, double number);
  LogField(absl::string_view key, bool flag);
  /// In seconds.
  LogField(absl::string_view key, absl::Duration duration);

  const std::string& json() const { return json_; }  ///< "key":value

 private:
  std::string json_;
};

/// Writes one JSON object on one line of stderr: ts (RFC 3339, UTC), level, msg, then the fields.
///
/// Requires: `msg` is a constant; fields hold no prompt, answer, token, URL with a query or decoder
///           text.
/// Threads:  any; never waits for more than the write to stderr.
void Log(LogLevel level, absl::string_view msg, std::initializer_list<LogField> fields = {});

/// The line that Log would write, without its newline.
std::string FormatLogLine(absl::Time now, LogLevel level, absl::string_view msg,
                          std::initializer_list<LogField> fields);

/// Sets the least level that is written; returns the one before. Info at start.
LogLevel SetLogLevel(LogLevel level);

/// Counts lines by level as videonsa_log_messages_total from now on, or no longer if null.
void CountLogMessages(MetricsRegistry* registry);

}  // namespace videonsa
