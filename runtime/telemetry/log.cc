#include "runtime/telemetry/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>
#include <atomic>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "runtime/telemetry/metrics.h"

namespace videonsa {
namespace {

constexpr size_t kMaxTextBytes = 256;
constexpr int kNumLevels = 4;

// Cuts at a character's border, then escapes as JSON; bytes that are not printable ASCII or part of
// a plausible UTF-8 sequence never reach a terminal as they are.
std::string Quoted(absl::string_view text) {
  if (text.size() > kMaxTextBytes) {
    size_t end = kMaxTextBytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end);
  }
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte < 0x20 || byte >= 0x7F) {
      absl::StrAppendFormat(&out, "\\u%04x", byte);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

struct Logger {
  Logger() : spd("videonsa", std::make_shared<spdlog::sinks::stderr_sink_mt>()) {
    spd.set_pattern("%v");
    spd.set_level(spdlog::level::trace);
    spd.flush_on(spdlog::level::trace);
  }
  spdlog::logger spd;
  std::atomic<int> level{static_cast<int>(LogLevel::kInfo)};
  absl::Mutex mutex;
  std::array<Counter, kNumLevels> counters ABSL_GUARDED_BY(mutex);
};

Logger& TheLogger() {
  static auto* const logger = new Logger;
  return *logger;
}

}  // namespace

const char* LogLevelName(LogLevel level) {
  constexpr std::array<const char*, kNumLevels> kNames = {"debug", "info", "warning", "error"};
  return kNames[static_cast<size_t>(level)];
}

bool ParseLogLevel(absl::string_view name, LogLevel* level) {
  for (int i = 0; i < kNumLevels; ++i) {
    if (name == LogLevelName(static_cast<LogLevel>(i))) {
      *level = static_cast<LogLevel>(i);
      return true;
    }
  }
  return false;
}

LogField::LogField(absl::string_view key, absl::string_view text)
    : json_(absl::StrCat(Quoted(key), ":", Quoted(text))) {}
LogField::LogField(absl::string_view key, int64_t number)
    : json_(absl::StrCat(Quoted(key), ":", number)) {}
LogField::LogField(absl::string_view key, double number)
    : json_(absl::StrCat(Quoted(key), ":",
                         std::isfinite(number) ? absl::StrFormat("%.6g", number) : "null")) {}
LogField::LogField(absl::string_view key, bool flag)
    : json_(absl::StrCat(Quoted(key), ":", flag ? "true" : "false")) {}
LogField::LogField(absl::string_view key, absl::Duration duration)
    : LogField(key, absl::ToDoubleSeconds(duration)) {}

std::string FormatLogLine(absl::Time now, LogLevel level, absl::string_view msg,
                          std::initializer_list<LogField> fields) {
  std::string line =
      absl::StrCat("{\"ts\":\"", absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", now, absl::UTCTimeZone()),
                   "\",\"level\":\"", LogLevelName(level), "\",\"msg\":", Quoted(msg));
  for (const LogField& field : fields) absl::StrAppend(&line, ",", field.json());
  line.push_back('}');
  return line;
}

void Log(LogLevel level, absl::string_view msg, std::initializer_list<LogField> fields) {
  Logger& logger = TheLogger();
  {
    absl::MutexLock lock(&logger.mutex);
    logger.counters[static_cast<size_t>(level)].Add();
  }
  if (static_cast<int>(level) < logger.level.load(std::memory_order_relaxed)) return;
  const std::string line = FormatLogLine(absl::Now(), level, msg, fields);
  logger.spd.log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
}

LogLevel SetLogLevel(LogLevel level) {
  return static_cast<LogLevel>(TheLogger().level.exchange(static_cast<int>(level)));
}

void CountLogMessages(MetricsRegistry* registry) {
  std::array<Counter, kNumLevels> counters;
  for (int i = 0; registry != nullptr && i < kNumLevels; ++i) {
    counters[static_cast<size_t>(i)] =
        registry->AddCounter("videonsa_log_messages_total", "Log lines by level.",
                             {{"level", LogLevelName(static_cast<LogLevel>(i))}});
  }
  absl::MutexLock lock(&TheLogger().mutex);
  TheLogger().counters = counters;
}

}  // namespace videonsa
