// Training-free attention patterns through the real server and the real client.
#include <stdio.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/e2e/server/e2e_fixture.h"
#include "tests/support/model/model_folder.h"

namespace videonsa::testing {
namespace {

using Mode = pb::AttentionConfig::Mode;

struct Pattern {
  Mode mode;
  const char* name;
};
constexpr Pattern kPatterns[] = {{pb::AttentionConfig::MODE_TRI_SHAPE, "tri_shape"},
                                 {pb::AttentionConfig::MODE_MINFERENCE, "minference"},
                                 {pb::AttentionConfig::MODE_FLEX_PREFILL, "flexprefill"},
                                 {pb::AttentionConfig::MODE_X_ATTENTION, "xattention"}};

class PatternsTest : public ServerTest {
 protected:
  static pb::Question ClipWith(Mode mode) {
    pb::Question question = ClipQuestion(ReadFile(MediaPath("stream-of-water.mp4")), "What is it?");
    question.mutable_attention()->set_mode(mode);
    return question;
  }
  // Output and exit code of `videonsa ask` about the clip.
  static std::pair<std::string, int> Client(const std::string& flags) {
    const std::string command = absl::StrCat(
        VIDEONSA_BIN_DIR "/videonsa ask ", MediaPath("stream-of-water.mp4"),
        " -q 'What is it?' --max-tokens 4 --server ", server_->address(), " ", flags, " 2>&1");
    FILE* const pipe = popen(command.c_str(), "r");
    std::string out;
    char buffer[4096];
    for (size_t got; (got = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) out.append(buffer, got);
    const int status = pclose(pipe);
    return {out, WIFEXITED(status) ? WEXITSTATUS(status) : -1};
  }
};

class DenseServerTest : public PatternsTest {
 protected:
  static void SetUpTestSuite() {
    test::TinyModel model;
    model.vocab = 1024;
    folder_ = std::make_unique<test::TemporaryFolder>();
    test::WriteServingFolder(model, *folder_);
    model_dir_ = folder_->path();
    PatternsTest::SetUpTestSuite();
  }
  static void TearDownTestSuite() {
    PatternsTest::TearDownTestSuite();
    model_dir_.clear();
    folder_.reset();
  }
  static inline std::unique_ptr<test::TemporaryFolder> folder_;
};

TEST_F(DenseServerTest, EveryPatternRunsAndIsAccountedFor) {
  for (const Pattern& pattern : kPatterns) {
    pb::AskResult result;
    const grpc::Status status = Ask(ClipWith(pattern.mode), &result);
    ASSERT_TRUE(status.ok()) << pattern.name << ": " << status.error_message();
    const pb::AttentionReport& report = result.attention();
    EXPECT_EQ(report.mode(), pattern.mode);
    EXPECT_EQ(report.semantics(), pattern.name);
    EXPECT_GT(report.used().selected(), 0) << pattern.name;
    EXPECT_EQ(report.used().compressed() + report.used().window(), 0) << pattern.name;
    EXPECT_LE(report.used().total(), report.dense_pairs()) << pattern.name;
    EXPECT_EQ(report.paper_budget_fraction(), 0);
    EXPECT_TRUE(absl::StrContains(
        Scrape(), absl::StrCat("videonsa_attention_mode_total{mode=\"", pattern.name, "\"} 1")))
        << pattern.name;
  }
}

TEST_F(DenseServerTest, TheClientNamesThem) {
  for (const Pattern& pattern : kPatterns) {
    const auto [out, code] = Client(absl::StrCat("--attention ", pattern.name));
    EXPECT_EQ(code, 0) << out;
    EXPECT_TRUE(absl::StrContains(out, pattern.name)) << out;
  }
}

TEST_F(DenseServerTest, BudgetsOfOtherAttentionAreRefused) {
  for (const char* flags : {"--selected-blocks 4", "--window 64", "--max-budget 0.5"}) {
    const auto [out, code] = Client(absl::StrCat("--attention minference ", flags));
    EXPECT_EQ(code, 1) << out;
    EXPECT_TRUE(absl::StrContains(out, "minference") || absl::StrContains(out, "pattern")) << out;
  }
  const auto [out, code] = Client("--attention native");
  EXPECT_EQ(code, 1) << out;
}

// The bundled model was trained with NSA.
class SparseServerTest : public PatternsTest {};

TEST_F(SparseServerTest, RefusesPatternsWithTheReason) {
  for (const Pattern& pattern : kPatterns) {
    pb::AskResult result;
    const grpc::Status status = Ask(ClipWith(pattern.mode), &result);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << pattern.name;
    EXPECT_TRUE(absl::StrContains(status.error_message(), "causal_nsa")) << status.error_message();
    EXPECT_TRUE(absl::StrContains(status.error_message(), pattern.name)) << status.error_message();
  }
}

}  // namespace
}  // namespace videonsa::testing
