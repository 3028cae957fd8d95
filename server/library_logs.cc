#include "server/library_logs.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/telemetry/log.h"

namespace videonsa {
namespace {

std::string Place(const char* file, int line) {
  const absl::string_view path = file;
  return absl::StrCat(path.substr(path.rfind('/') + 1), ":", line);
}

void LogGrpc(gpr_log_func_args* args) {
  LogLevel level = LogLevel::kDebug;
  if (args->severity == GPR_LOG_SEVERITY_ERROR) level = LogLevel::kWarning;
  Log(level, "gRPC says", {{"text", args->message}, {"place", Place(args->file, args->line)}});
}

void LogProtobuf(google::protobuf::LogLevel level, const char* file, int line,
                 const std::string& text) {
  const bool ends = level == google::protobuf::LOGLEVEL_FATAL;
  Log(ends ? LogLevel::kError : LogLevel::kDebug, "Protocol Buffers say",
      {{"text", text}, {"place", Place(file, line)}});
}

}  // namespace

void RouteLibraryLogs() {
  gpr_set_log_function(LogGrpc);
  google::protobuf::SetLogHandler(LogProtobuf);
}

}  // namespace videonsa
