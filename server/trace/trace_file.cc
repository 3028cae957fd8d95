#include "server/trace/trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/error.h"
#include "runtime/telemetry/log.h"

namespace videonsa {
namespace {

int64_t Nanoseconds(absl::Time time) { return absl::ToUnixNanos(time); }

void AppendChrome(const TraceSpan& span, int64_t row, std::string& out) {
  absl::StrAppendFormat(&out,
                        "{\"name\":%s,\"cat\":\"videonsa\",\"ph\":\"X\",\"ts\":%.3f,\"dur\":%.3f,"
                        "\"pid\":1,\"tid\":%d,\"args\":{\"trace_id\":%s,\"span_id\":%s",
                        JsonString(span.name), static_cast<double>(Nanoseconds(span.start)) / 1000,
                        absl::ToDoubleMicroseconds(span.duration), row, JsonString(span.trace_id),
                        JsonString(span.span_id));
  if (!span.parent_id.empty()) {
    absl::StrAppend(&out, ",\"parent_id\":", JsonString(span.parent_id));
  }
  for (const auto& [key, value] : span.attributes) {
    absl::StrAppend(&out, ",", JsonString(key), ":", JsonString(value));
  }
  absl::StrAppend(&out, "}},\n");
}

void AppendOtlp(const TraceSpan& span, std::string& out) {
  constexpr int kServer = 2;    // SPAN_KIND_SERVER
  constexpr int kInternal = 1;  // SPAN_KIND_INTERNAL
  absl::StrAppend(&out, "{\"traceId\":", JsonString(span.trace_id),
                  ",\"spanId\":", JsonString(span.span_id));
  if (!span.parent_id.empty()) {
    absl::StrAppend(&out, ",\"parentSpanId\":", JsonString(span.parent_id));
  }
  // 64-bit numbers are strings in proto3's JSON.
  absl::StrAppend(&out, ",\"name\":", JsonString(span.name),
                  ",\"kind\":", span.attributes.empty() ? kInternal : kServer,
                  ",\"startTimeUnixNano\":\"", Nanoseconds(span.start), "\",\"endTimeUnixNano\":\"",
                  Nanoseconds(span.start + span.duration), "\",\"attributes\":[");
  for (size_t i = 0; i < span.attributes.size(); ++i) {
    const auto& [key, value] = span.attributes[i];
    absl::StrAppend(&out, i == 0 ? "" : ",", "{\"key\":", JsonString(key),
                    ",\"value\":{\"stringValue\":", JsonString(value), "}}");
  }
  absl::StrAppend(&out, "]}");
}

std::string OtlpLine(const std::vector<TraceSpan>& spans) {
  std::string line =
      "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{"
      "\"stringValue\":\"videonsa-server\"}}]},\"scopeSpans\":[{\"scope\":{\"name\":\"videonsa\"},"
      "\"spans\":[";
  for (size_t i = 0; i < spans.size(); ++i) {
    if (i > 0) line += ',';
    AppendOtlp(spans[i], line);
  }
  return line + "]}]}]}\n";
}

}  // namespace

std::string JsonString(absl::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      absl::StrAppendFormat(&out, "\\u%04x", byte);
    } else {
      out += byte < 0x7f ? c : '?';
    }
  }
  return out + "\"";
}

TraceFile::TraceFile(UniqueFd file, bool empty, TraceFormat format, MetricsRegistry& metrics)
    : file_(std::move(file)),
      format_(format),
      written_(metrics.AddCounter("videonsa_trace_calls_total", "Calls in the trace file.",
                                  {{"outcome", "written"}})),
      dropped_(metrics.AddCounter("videonsa_trace_calls_total", "Calls in the trace file.",
                                  {{"outcome", "dropped"}})) {
  // The closing bracket may be missing: the format says so, for programs that end at any time.
  if (format == TraceFormat::kChrome && empty) pending_ = "[\n";
}

absl::StatusOr<std::unique_ptr<TraceFile>> TraceFile::Open(const std::string& path,
                                                           TraceFormat format,
                                                           MetricsRegistry& metrics) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  struct stat facts {};
  if (!file.valid() || fstat(file.get(), &facts) != 0 || !S_ISREG(facts.st_mode)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "OPTION_INVALID",
                     absl::StrCat("--trace-file: cannot append to ", path));
  }
  return std::unique_ptr<TraceFile>(
      new TraceFile(std::move(file), facts.st_size == 0, format, metrics));
}

void TraceFile::Add(const std::vector<TraceSpan>& spans) {
  std::string line;
  if (format_ == TraceFormat::kOtlp) line = OtlpLine(spans);
  absl::MutexLock lock(&mutex_);
  if (format_ == TraceFormat::kChrome) {
    ++row_;
    for (const TraceSpan& span : spans) AppendChrome(span, row_, line);
  }
  if (pending_.size() + line.size() > kMaxBuffered) {
    dropped_.Add();
    return;
  }
  pending_ += line;
  written_.Add();
}

void TraceFile::Flush() {
  absl::MutexLock file_lock(&file_mutex_);
  std::string bytes;
  {
    absl::MutexLock lock(&mutex_);
    bytes.swap(pending_);
  }
  absl::string_view rest = bytes;
  while (!rest.empty()) {
    const ssize_t wrote = write(file_.get(), rest.data(), rest.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      Log(LogLevel::kWarning, "trace file cannot be written",
          {{"lost_bytes", static_cast<int64_t>(rest.size())}, {"error", strerror(errno)}});
      return;
    }
    rest.remove_prefix(static_cast<size_t>(wrote));
  }
}

}  // namespace videonsa
