#include "client/openai/options.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/error.h"

namespace videonsa::openai {
namespace {

// One flag: how its value is read into the options, or why not.
struct Row {
  const char* name;
  const char* value;
  std::string help;
  std::function<std::string(const std::string& text, FrontOptions& options)> set;
};

Row Text(const char* name, const char* value, const char* help,
         std::function<std::string&(FrontOptions&)> field) {
  const std::string standard = field(*std::make_unique<FrontOptions>());
  return {name, value,
          absl::StrCat(help, standard.empty() ? "" : absl::StrCat("; default ", standard)),
          [field](const std::string& text, FrontOptions& options) {
            field(options) = text;
            return std::string();
          }};
}

// A whole number in [low, high]; `scale` is what one unit of it means in the field.
template <typename T>
Row Number(const char* name, const char* help, int64_t low, int64_t high, int64_t scale,
           std::function<T&(FrontOptions&)> field) {
  const auto standard = static_cast<int64_t>(field(*std::make_unique<FrontOptions>())) / scale;
  const std::string range = absl::StrCat(low, " to ", high);
  return {name, "N", absl::StrCat(help, "; default ", standard, ", ", range),
          [=](const std::string& text, FrontOptions& options) {
            int64_t value = 0;
            if (!absl::SimpleAtoi(text, &value) || value < low || value > high) return range;
            field(options) = static_cast<T>(value * scale);
            return std::string();
          }};
}

Row Time(const char* name, const char* help, absl::Duration low, absl::Duration high,
         std::function<absl::Duration&(FrontOptions&)> field) {
  const absl::Duration standard = field(*std::make_unique<FrontOptions>());
  const std::string range =
      absl::StrCat(absl::FormatDuration(low), " to ", absl::FormatDuration(high));
  return {name, "TIME",
          absl::StrCat(help, "; default ", absl::FormatDuration(standard), ", ", range),
          [=](const std::string& text, FrontOptions& options) {
            absl::Duration value;
            if (!absl::ParseDuration(text, &value) || value < low || value > high) return range;
            field(options) = value;
            return std::string();
          }};
}

std::vector<Row> Rows() {
  using O = FrontOptions;
  constexpr int64_t kMiB = 1 << 20;
  return {
      Text("listen", "ADDR", "HTTP; port 0 takes a free one and prints it",
           [](O& o) -> std::string& { return o.listen; }),
      Text("server", "ADDR", "gRPC address of the inference server",
           [](O& o) -> std::string& { return o.server.address; }),
      Text("tls-ca", "FILE", "trust these authorities and speak TLS to the server",
           [](O& o) -> std::string& { return o.server.ca_file; }),
      Text("tls-cert", "FILE", "own certificate (mutual TLS)",
           [](O& o) -> std::string& { return o.server.cert_file; }),
      Text("tls-key", "FILE", "own key (mutual TLS)",
           [](O& o) -> std::string& { return o.server.key_file; }),
      Number<int>("channels", "connections to the server", 1, 64, 1,
                  [](O& o) -> int& { return o.channels; }),
      Number<int>("max-connections", "HTTP connections, a thread each", 1, 900, 1,
                  [](O& o) -> int& { return o.max_connections; }),
      Number<int>("max-requests", "questions at once", 1, 900, 1,
                  [](O& o) -> int& { return o.max_requests; }),
      Number<size_t>("max-body", "MiB of one request body", 1, 1024, kMiB,
                     [](O& o) -> size_t& { return o.connection.body_bytes; }),
      Number<int64_t>("max-bodies", "MiB of all request bodies in memory", 1, 65536, kMiB,
                      [](O& o) -> int64_t& { return o.max_bodies_bytes; }),
      Time("head-time", "to read request line and headers", absl::Milliseconds(100),
           absl::Minutes(5), [](O& o) -> absl::Duration& { return o.connection.head_time; }),
      Time("body-time", "to read a body", absl::Milliseconds(100), absl::Minutes(60),
           [](O& o) -> absl::Duration& { return o.connection.body_time; }),
      Time("idle-time", "an idle connection stays open", absl::Milliseconds(100), absl::Minutes(60),
           [](O& o) -> absl::Duration& { return o.connection.idle; }),
      Time("write-stall", "a write without progress ends the connection", absl::Milliseconds(100),
           absl::Minutes(60), [](O& o) -> absl::Duration& { return o.connection.write_stall; }),
      Time("request-time", "a whole answer", absl::Seconds(1), absl::Minutes(60),
           [](O& o) -> absl::Duration& { return o.request_time; }),
      Time("quiet-time", "a stream without text sends a comment", absl::Milliseconds(100),
           absl::Minutes(10), [](O& o) -> absl::Duration& { return o.quiet; }),
      Time("drain-timeout", "open answers may run on after SIGTERM", absl::ZeroDuration(),
           absl::Minutes(60), [](O& o) -> absl::Duration& { return o.drain_time; }),
  };
}

absl::Status Usage(absl::string_view what) {
  return client::LocalError(absl::StatusCode::kInvalidArgument, "FIELD_INVALID", what);
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& words) {
  CommandLine line;
  const std::vector<Row> rows = Rows();
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    line.help |= word == "--help" || word == "-h";
    line.version |= word == "--version";
    if (line.help || line.version) return line;
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const Row* found = nullptr;
    for (const Row& row : rows) {
      if (name == absl::StrCat("--", row.name)) found = &row;
    }
    if (found == nullptr) return Usage(absl::StrCat("unknown flag ", word, "; see --help"));
    if (equals == std::string::npos && i + 1 == words.size()) {
      return Usage(absl::StrCat(name, " needs a value"));
    }
    const std::string value = equals != std::string::npos ? word.substr(equals + 1) : words[++i];
    const std::string range = found->set(value, line.options);
    if (!range.empty()) return Usage(absl::StrCat(name, ": is ", value, ", must be ", range));
  }
  return line;
}

std::string HelpText() {
  std::string out =
      "videonsa-openai [FLAGS]\n\n"
      "Serves the OpenAI chat API over HTTP from a videonsa-server. Plain HTTP: put a gateway "
      "that\n"
      "speaks TLS in front. Tokens are passed on to the server, which judges them.\n\n";
  for (const Row& row : Rows()) {
    absl::StrAppend(&out, absl::StrFormat("  %-24s %s\n",
                                          absl::StrCat("--", row.name, " ", row.value), row.help));
  }
  return out;
}

}  // namespace videonsa::openai
