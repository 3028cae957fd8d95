#include "client/openai/options.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"

namespace videonsa::openai {
namespace {

TEST(OpenAiOptionsTest, ReadsBothFormsOfAFlag) {
  const auto line = ParseCommandLine(
      {"--listen", "127.0.0.1:0", "--server=host:1", "--max-body=2", "--request-time", "30s"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.listen, "127.0.0.1:0");
  EXPECT_EQ(line->options.server.address, "host:1");
  EXPECT_EQ(line->options.connection.body_bytes, size_t{2} << 20);
  EXPECT_EQ(line->options.request_time, absl::Seconds(30));
}

TEST(OpenAiOptionsTest, RefusesWhatItDoesNotKnowOrCannotDo) {
  EXPECT_TRUE(absl::StrContains(ParseCommandLine({"--colour"}).status().message(), "--colour"));
  EXPECT_TRUE(absl::StrContains(ParseCommandLine({"--listen"}).status().message(), "needs"));
  EXPECT_TRUE(absl::StrContains(ParseCommandLine({"--max-requests=0"}).status().message(),
                                "must be 1 to 900"));
  EXPECT_FALSE(ParseCommandLine({"--request-time=fast"}).ok());
}

TEST(OpenAiOptionsTest, HelpNamesEveryFlagWithItsDefault) {
  const std::string help = HelpText();
  EXPECT_TRUE(absl::StrContains(help, "--listen ADDR"));
  EXPECT_TRUE(absl::StrContains(help, "default 127.0.0.1:8080"));
  EXPECT_TRUE(absl::StrContains(help, "default 32, 1 to 1024"));
  EXPECT_TRUE(ParseCommandLine({"--help"})->help);
  EXPECT_TRUE(ParseCommandLine({"--version"})->version);
}

}  // namespace
}  // namespace videonsa::openai
