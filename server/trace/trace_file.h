#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/telemetry/metrics.h"
#include "server/clip_store/storage_dir.h"

namespace videonsa {

/// A piece of work and when it was done.
struct TraceSpan {
  std::string name;
  std::string trace_id;   ///< 32 hexadecimal digits
  std::string span_id;    ///< 16
  std::string parent_id;  ///< 16, or empty
  absl::Time start;
  absl::Duration duration;
  std::vector<std::pair<std::string, std::string>> attributes;  ///< ids and codes, no content
};

enum class TraceFormat {
  kChrome,  ///< Trace Event Format: one JSON array that Perfetto and chrome://tracing open
  kOtlp,    ///< one OTLP/JSON ExportTraceServiceRequest a line, as the collector's file receiver
            ///< reads
};

/// Appends spans to a file.
///
/// Spans wait in memory until Flush; beyond kMaxBuffered they are dropped and counted, so a slow
/// disk costs spans and never a call.
/// Threads: all methods may be called from any thread; Flush and the destructor wait for the disk.
class TraceFile {
 public:
  static constexpr size_t kMaxBuffered = size_t{4} << 20;

  /// Opens `path` for appending, or creates it with mode 0600.
  /// Errors: INVALID_ARGUMENT (OPTION_INVALID).
  static absl::StatusOr<std::unique_ptr<TraceFile>> Open(const std::string& path,
                                                         TraceFormat format,
                                                         MetricsRegistry& metrics);
  ~TraceFile() { Flush(); }

  /// The spans of one call, root first. In Chrome's format they share a row.
  void Add(const std::vector<TraceSpan>& spans);

  /// Writes what waits.
  void Flush();

 private:
  TraceFile(UniqueFd file, bool empty, TraceFormat format, MetricsRegistry& metrics);

  const UniqueFd file_;
  const TraceFormat format_;
  const Counter written_, dropped_;
  absl::Mutex mutex_;
  std::string pending_ ABSL_GUARDED_BY(mutex_);
  int64_t row_ ABSL_GUARDED_BY(mutex_) = 0;  // of the last call, in Chrome's format
  absl::Mutex file_mutex_;                   // keeps two Flush apart; never with mutex_
};

/// `text` as a JSON string with its quotes; bytes that are not UTF-8 become '?'.
std::string JsonString(absl::string_view text);

}  // namespace videonsa
