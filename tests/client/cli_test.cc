#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/channel.h"
#include "client/json.h"
#include "tests/client/fake_server.h"

namespace videonsa::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Ran {
  int code = -1;
  std::string out, err;
};

class CliTest : public testing::Test {
 protected:
  // Runs the real program; words must not need more quoting than '...'.
  Ran Run(const std::vector<std::string>& words) {
    const std::string err = testing::TempDir() + "/cli_test_" +
                            testing::UnitTest::GetInstance()->current_test_info()->name() + ".err";
    std::string command = VIDEONSA_BIN_DIR "/videonsa";
    for (const std::string& word : words) absl::StrAppend(&command, " '", word, "'");
    absl::StrAppend(&command, " 2>", err, " </dev/null");
    Ran ran;
    FILE* pipe = popen(command.c_str(), "r");
    char buffer[4096];
    for (size_t n; (n = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) ran.out.append(buffer, n);
    ran.code = WEXITSTATUS(pclose(pipe));
    ran.err = *ReadFile(err);
    return ran;
  }

  Ran RunWithServer(std::vector<std::string> words) {
    words.insert(words.end(), {"--server", server_.address(), "--timeout", "60"});
    return Run(words);
  }

  std::string FileOf(size_t size) {
    const std::string path = testing::TempDir() + "/cli_clip_" + std::to_string(size) + ".mp4";
    std::ofstream(path, std::ios::binary) << std::string(size, 'v');
    return path;
  }

  FakeState state_;
  FakeServer server_{state_};
};

TEST_F(CliTest, AnswerOnStdoutReportOnStderr) {
  const Ran ran =
      RunWithServer({"ask", FileOf(1000), "-q", "What is it?", "--evidence", "--gates"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.out, "You asked: What is it?\n");
  for (const char* part : {"1280×720 → 448×252, 32 frames", "4,136 in (4,096 vision", "causal_nsa",
                           "11.5 % of the dense pairs", "selected", "first token after 3.20 s",
                           "prefill", "most watched", "gates", "end of answer"}) {
    EXPECT_THAT(ran.err, HasSubstr(part));
  }
  EXPECT_THAT(ran.err, Not(HasSubstr("\x1b"))) << "no colours and no status line off a terminal";
  absl::MutexLock lock(&state_.mutex);
  ASSERT_EQ(state_.asked.size(), 1u);
  const proto::Question& question = state_.asked[0].question();
  EXPECT_EQ(question.turns(0).parts(0).clip().inline_data().size(), 1000u);
  EXPECT_TRUE(question.report().attended_intervals());
  EXPECT_TRUE(question.report().gates());
}

TEST_F(CliTest, ReportIsAPage) {
  const std::string page = testing::TempDir() + "/report.html";
  const Ran ran = RunWithServer({"ask", "clips/a", "-q", "What is it?", "--report", page});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("report written to"));
  const std::string html = *ReadFile(page);
  EXPECT_THAT(html, HasSubstr("You asked: What is it?"));
  EXPECT_THAT(html, HasSubstr("the clip is not a file on this machine"));
  const Ran bad = RunWithServer({"ask", "-q", "What?", "--report", "/does/not/exist/x.html"});
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.err, HasSubstr("FILE_UNWRITABLE"));
}

TEST_F(CliTest, LargeFilesAreUploadedOnce) {
  const std::string path = FileOf(2'000'000);
  const Ran first = RunWithServer({"ask", path, "-q", "What?"});
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("stored as clips/upload-1"));
  const Ran second = RunWithServer({"ask", path, "-q", "What?"});
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_THAT(second.err, HasSubstr("already stored as clips/upload-1"));
  absl::MutexLock lock(&state_.mutex);
  EXPECT_EQ(state_.asked[0].question().turns(0).parts(0).clip().clip(), "clips/upload-1");
}

TEST_F(CliTest, JsonHasItsSchema) {
  const Ran ran = RunWithServer({"ask", "clips/abc", "-q", "What?", "--json", "--quiet"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.err, "");
  const auto json = ParseJson(ran.out);
  ASSERT_TRUE(json.ok()) << json.status() << ran.out;
  EXPECT_EQ(StringAt(*json, "schema", ""), "videonsa.ask/1");
  EXPECT_EQ(StringAt(*json, "answer", ""), "You asked: What?");
  EXPECT_EQ(NumberAt(*json, "result.attention.used.selected", 0), 600000);
  EXPECT_NEAR(NumberAt(*json, "result.timing.time_to_first_token_s", 0), 3.2, 1e-9);
  EXPECT_GT(NumberAt(*json, "client.total_s", 0), 0);
}

TEST_F(CliTest, EveryTypedErrorIsPrinted) {
  struct Row {
    grpc::StatusCode code;
    const char* name;
    const char* reason;
  };
  for (const Row& row : std::vector<Row>{
           {grpc::StatusCode::INVALID_ARGUMENT, "INVALID_ARGUMENT", "FIELD_INVALID"},
           {grpc::StatusCode::INVALID_ARGUMENT, "INVALID_ARGUMENT", "TOO_MANY_FRAMES"},
           {grpc::StatusCode::INVALID_ARGUMENT, "INVALID_ARGUMENT", "MEDIA_CORRUPT"},
           {grpc::StatusCode::NOT_FOUND, "NOT_FOUND", "CLIP_NOT_FOUND"},
           {grpc::StatusCode::FAILED_PRECONDITION, "FAILED_PRECONDITION", "CLIP_NOT_READY"},
           {grpc::StatusCode::ABORTED, "ABORTED", "OFFSET_MISMATCH"},
           {grpc::StatusCode::DATA_LOSS, "DATA_LOSS", "CHECKSUM_MISMATCH"},
           {grpc::StatusCode::RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"},
           {grpc::StatusCode::UNAVAILABLE, "UNAVAILABLE", "KV_EXHAUSTED"},
           {grpc::StatusCode::PERMISSION_DENIED, "PERMISSION_DENIED", "URL_NOT_ALLOWED"},
           {grpc::StatusCode::UNAUTHENTICATED, "UNAUTHENTICATED", "TOKEN_INVALID"},
           {grpc::StatusCode::DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT"},
           {grpc::StatusCode::INTERNAL, "INTERNAL", "INTERNAL"}}) {
    state_.answer = [row](auto*, const auto&, auto*) {
      return TypedError(row.code, row.reason, "the number 42 is wrong", {{"limit", "41"}}, 3);
    };
    const Ran ran = RunWithServer({"ask", "-q", "What?", "--json"});
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(ran.err, HasSubstr(absl::StrCat(row.name, " ", row.reason)));
    EXPECT_THAT(ran.err, HasSubstr("the number 42 is wrong"));
    EXPECT_THAT(ran.err, HasSubstr("limit     41"));
    const auto json = ParseJson(ran.out);
    ASSERT_TRUE(json.ok()) << ran.out;
    EXPECT_EQ(StringAt(*json, "error.reason", ""), row.reason);
    EXPECT_EQ(StringAt(*json, "error.code", ""), row.name);
    EXPECT_EQ(StringAt(*json, "error.metadata.limit", ""), "41");
    EXPECT_EQ(NumberAt(*json, "error.retry_after_s", 0), 3);
  }
}

TEST_F(CliTest, UsageErrorsExitWithTwo) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"aks"},
                                             {"ask"},
                                             {"ask", "/no/such/file.mp4", "-q", "x"},
                                             {"ask", "-q", "x", "--fsp", "1"},
                                             {"ask", "-q", "x", "--fps", "fast"},
                                             {"clips"},
                                             {"clips", "get"},
                                             {"upload"},
                                             {"ask", "-q", "x", "--timeout", "soon"},
                                             {"ask", "-q", "x", "--tls-cert", "a"}}) {
    const Ran ran = Run(words);
    EXPECT_EQ(ran.code, 2) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("videonsa:"));
    EXPECT_EQ(ran.out, "");
  }
  EXPECT_THAT(Run({"aks"}).err, HasSubstr("did you mean ask?"));
  EXPECT_THAT(Run({"clips"}).err, HasSubstr("clips list"));
}

TEST_F(CliTest, HelpForEveryCommand) {
  const Ran overview = Run({"help"});
  EXPECT_EQ(overview.code, 0);
  for (const char* command : {"ask", "upload", "import", "clips list", "clips get", "clips delete",
                              "clips watch", "estimate", "model", "status", "health", "drain"}) {
    EXPECT_THAT(overview.out, HasSubstr(command));
    std::vector<std::string> words = absl::StrSplit(command, ' ');
    words.push_back("--help");
    const Ran ran = Run(words);
    EXPECT_EQ(ran.code, 0) << command;
    EXPECT_THAT(ran.out, HasSubstr(absl::StrCat("videonsa ", command)));
  }
  EXPECT_THAT(Run({"ask", "--help"}).out, HasSubstr("Examples:"));
}

TEST_F(CliTest, UploadPrintsTheNameAndTheDigest) {
  const Ran ran = RunWithServer({"upload", FileOf(300'000)});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.out, "clips/upload-1\n");
  EXPECT_THAT(ran.err, HasSubstr("sha256 "));
  EXPECT_THAT(RunWithServer({"clips", "list"}).out, HasSubstr("clips/upload-1"));
  EXPECT_THAT(RunWithServer({"clips", "get", "clips/upload-1"}).out, HasSubstr("ready"));
  EXPECT_EQ(RunWithServer({"clips", "delete", "clips/upload-1"}).code, 0);
  const Ran gone = RunWithServer({"clips", "get", "clips/upload-1"});
  EXPECT_EQ(gone.code, 1);
  EXPECT_THAT(gone.err, HasSubstr("NOT_FOUND CLIP_NOT_FOUND"));
}

TEST_F(CliTest, UnusableClipTellsWhy) {
  state_.probe_fails = true;
  const Ran ran = RunWithServer({"upload", FileOf(300'000)});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("MEDIA_CORRUPT"));
}

TEST_F(CliTest, ServerCommands) {
  EXPECT_THAT(RunWithServer({"model"}).out, HasSubstr("fake"));
  EXPECT_THAT(RunWithServer({"status"}).out, HasSubstr("3 running"));
  EXPECT_EQ(RunWithServer({"health"}).code, 0);
  EXPECT_EQ(RunWithServer({"health", "--service", "nobody"}).code, 1);
  EXPECT_EQ(Run({"health", "--server", "127.0.0.1:1", "--timeout", "5"}).code, 1);
  EXPECT_THAT(RunWithServer({"estimate", "clips/a", "--json"}).out,
              HasSubstr("\"kv_bytes\": 123456789"));
  EXPECT_THAT(RunWithServer({"estimate", "clips/a"}).out, HasSubstr("123 MB"));
  EXPECT_EQ(RunWithServer({"drain"}).code, 1);
}

TEST_F(CliTest, ControlCharactersSurviveAPipeButNotTheReport) {
  state_.answer = [](auto*, const auto&, grpc::ServerWriter<proto::AskStreamResponse>* writer) {
    writer->Write({});
    return TypedError(grpc::StatusCode::INTERNAL, "INTERNAL", "bad \x1b[31m text");
  };
  const Ran ran = RunWithServer({"ask", "-q", "What?"});
  EXPECT_THAT(ran.err, Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace videonsa::client
