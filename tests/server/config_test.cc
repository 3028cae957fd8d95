// The configuration file, what may stand in it, and how a running server takes it over.
#include <signal.h>

#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "server/command_line.h"
#include "server/option_row.h"
#include "server/run_server.h"
#include "tests/server/access_fixture.h"
#include "tests/server/test_server.h"
#include "tests/support/server_process.h"

namespace videonsa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  std::string path() const { return folder_.path() + "/server.yaml"; }
  absl::StatusOr<CommandLine> Parse(const std::string& file,
                                    std::vector<std::string> more = {}) const {
    WriteText(path(), file);
    more.push_back("--config=" + path());
    return ParseCommandLine(more);
  }

  TemporaryFolder folder_;
};

TEST_F(ConfigTest, TheCommandLineCountsOverTheFile) {
  const auto line = Parse(
      "# for one machine\n"
      "listen: 0.0.0.0:9000\n"
      "threads: 3\n"
      "kv-bytes: 2G\n"
      "reflection: true\n"
      "url-hosts:\n  - a.example\n  - '*.b.example'\n"
      "url-ports: [443, 8443]\n"
      "clip-dir:\n",
      {"--threads", "5"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.listen, "0.0.0.0:9000");
  EXPECT_EQ(line->options.runtime.cpu_threads, 5) << "the flag stood before --config";
  EXPECT_EQ(line->options.runtime.kv_bytes, int64_t{2} << 30);
  EXPECT_EQ(line->options.reflection, "true");
  EXPECT_THAT(line->options.urls.rules.hosts, ElementsAre("a.example", "*.b.example"));
  EXPECT_THAT(line->options.urls.rules.ports, ElementsAre(443, 8443));
}

TEST_F(ConfigTest, AnEmptyFileIsFine) {
  EXPECT_TRUE(Parse("").ok());
  EXPECT_TRUE(Parse("# nothing yet\n").ok());
}

TEST_F(ConfigTest, WhatIsWrongIsNamedWithItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"threads: 1\nlistenn: x", "line 2: \"listenn\" is no option; did you mean listen?"},
      {"tenant-request: 1", "did you mean tenant-requests?"},
      {"quite-something-else: 1", "\"quite-something-else\" is no option; see --help"},
      {"config: other.yaml", "\"config\" is no option"},
      {"check-config: true", "\"check-config\" is no option"},
      {"--threads: 1", "is no option"},
      {"threads: many", "line 1: --threads: \"many\" is not 0 to 1024"},
      {"threads: 1\nthreads: 2", "line 2: \"threads\" stands twice"},
      {"threads: {a: 1}", "must be a value or a list"},
      {"url-hosts: [[a]]", "must be a list of values"},
      {"kv-bytes: 1X", "line 1: --kv-bytes"},
      {"- threads", "must hold one"},
      {"threads", "must hold one"},
      {"threads: [", "server.yaml"},
  };
  for (const auto& [file, message] : cases) {
    const absl::Status status = Parse(file).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << file;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << file;
  }
  const absl::Status missing = ParseCommandLine({"--config", folder_.path() + "/none"}).status();
  EXPECT_EQ(GetErrorInfo(missing)->reason, "FILE_UNREADABLE");
  EXPECT_THAT(std::string(ParseCommandLine({"--thread=1"}).status().message()),
              HasSubstr("did you mean threads?"));
}

TEST_F(ConfigTest, OptionsThatDoNotFitTogetherAreRefused) {
  EXPECT_TRUE(CheckOptions(ServerOptions()).ok());
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--default-deadline=100", "--max-deadline=10"},
           {"--clip-ttl=7200", "--max-clip-ttl=3600"},
           {"--default-output-tokens=10", "--max-output-tokens=5"},
           {"--listen="},
           {"--tls-cert=" + path()},
           {"--access-file=" + path()}}) {
    const auto line = ParseCommandLine(words);
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_FALSE(CheckOptions(line->options).ok()) << words[0];
  }
}

TEST(OptionTable, EveryDefaultIsAValueOfItsOption) {
  std::set<std::string> names;
  for (const OptionRow& row : OptionRows()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name << " stands twice";
    EXPECT_FALSE(row.meaning.empty()) << row.name;
    EXPECT_FALSE(row.range.empty()) << row.name;
    const std::string value = row.get(ServerOptions());
    if (absl::StartsWith(value, "(")) continue;  // "(empty)", "(as trained)"
    ServerOptions options;
    EXPECT_TRUE(row.set(options, value).ok()) << row.name << " " << value;
    EXPECT_EQ(row.get(options), value) << row.name;
  }
}

TEST(OptionTable, HelpNamesEveryOption) {
  const std::string help = HelpText();
  for (const OptionRow& row : OptionRows()) {
    EXPECT_THAT(help, HasSubstr(absl::StrCat("\n  --", row.name)));
  }
}

TEST(OptionTable, TheDocumentIsUpToDate) {
  std::ifstream file(std::string(VIDEONSA_SOURCE_DIR) + "/server/OPTIONS.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), OptionsMarkdown())
      << "run: videonsa-server --print-options > server/OPTIONS.md";
}

TEST(OptionChanges, OnlySomeAreTakenOver) {
  const auto fresh = ParseCommandLine(
      {"--tenant-requests=60", "--log-level=debug", "--threads=9", "--tenant-clip-bytes=1G"});
  ASSERT_TRUE(fresh.ok());
  const OptionChanges changes = ChangesOf(ServerOptions(), fresh->options);
  EXPECT_THAT(changes.taken,
              ::testing::UnorderedElementsAre("tenant-requests", "log-level", "tenant-clip-bytes"));
  EXPECT_THAT(changes.waiting, ElementsAre("threads"));
  EXPECT_EQ(changes.options.access.tenant.requests_per_minute, 60);
  EXPECT_EQ(changes.options.clips.tenant_bytes, int64_t{1} << 30);
  EXPECT_EQ(changes.options.log_level, LogLevel::kDebug);
  EXPECT_EQ(changes.options.runtime.cpu_threads, ServerOptions().runtime.cpu_threads);
}

TEST_F(ConfigTest, CheckConfigSaysByItsExitCode) {
  const auto check = [this](const std::string& file) {
    WriteText(path(), file);
    return RunServer({"--check-config", "--config", path()}, nullptr);
  };
  EXPECT_EQ(check("threads: 2\n"), 0);
  EXPECT_EQ(check("threads: two\n"), 2);
  EXPECT_EQ(check("default-deadline: 1000\n"), 2);
  EXPECT_EQ(check("access-file: /none\n"), 2);
  WriteText(folder_.path() + "/access.yaml", "tokens: [{}]");
  EXPECT_EQ(check("access-file: " + folder_.path() + "/access.yaml\n"), 2);
  WriteText(folder_.path() + "/access.yaml", AccessServer::Tenants({"a"}));
  EXPECT_EQ(check("access-file: " + folder_.path() + "/access.yaml\n"), 0);
}

TEST_F(ConfigTest, ARunningServerTakesOverWhatItCan) {
  WriteText(path(), "tenant-requests: 1\n");
  const TemporaryFolder clips;
  std::unique_ptr<testing::ServerProcess> process;
  const absl::Status started = testing::ServerProcess::Start(
      {.binary = std::string(VIDEONSA_BIN_DIR) + "/../tests/fake_runtime_server",
       .clip_dir = clips.path(),
       .extra_flags = {"--config", path()}},
      process);
  ASSERT_TRUE(started.ok()) << started;
  const auto channel = grpc::CreateChannel(process->address(), grpc::InsecureChannelCredentials());
  const auto code = [&channel] {
    return RawCall::Run(channel, "/videonsa.v1.ServerService/GetModel").error_code();
  };
  const auto becomes = [&code](grpc::StatusCode wanted) {
    for (const absl::Time limit = absl::Now() + absl::Seconds(20); absl::Now() < limit;) {
      if (code() == wanted) return true;
    }
    return false;
  };
  EXPECT_EQ(code(), grpc::StatusCode::OK);
  EXPECT_EQ(code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  WriteText(path(), "tenant-requests: 0\nthreads: 7\n");
  process->Signal(SIGHUP);
  EXPECT_TRUE(becomes(grpc::StatusCode::OK));
  EXPECT_EQ(code(), grpc::StatusCode::OK);
  // A bad file changes nothing; the good one after it does.
  WriteText(path(), "tenant-requests: none\n");
  process->Signal(SIGHUP);
  EXPECT_EQ(code(), grpc::StatusCode::OK);
  WriteText(path(), "tenant-requests: 2\n");
  process->Signal(SIGHUP);
  EXPECT_TRUE(becomes(grpc::StatusCode::RESOURCE_EXHAUSTED));
  process->Signal(SIGTERM);
  EXPECT_EQ(process->Wait(), 0);
}

}  // namespace
}  // namespace videonsa
