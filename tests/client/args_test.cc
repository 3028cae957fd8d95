#include "client/cli/args.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/format.h"

namespace videonsa::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

CommandSpec Spec() {
  CommandSpec spec;
  spec.name = "do";
  spec.arguments = "THING...";
  spec.description = "Does things.";
  spec.groups = {{"Flags",
                  {{"count", "N",
                    "how many times, told in a sentence that is long enough to wrap "
                    "around at eighty columns"},
                   {"name", "TEXT", "a name", 'n', true},
                   {"fast", "", "hurry", 'f'}}}};
  spec.max_arguments = 2;
  return spec;
}

absl::StatusOr<ParsedArgs> Parse(std::vector<std::string> words) {
  return ParseArgs(Spec(), words);
}

TEST(Args, FlagsInEveryForm) {
  const auto args = Parse({"a", "--count", "3", "-n", "x", "--name=y=z", "-f", "--", "--b"});
  ASSERT_TRUE(args.ok()) << args.status();
  EXPECT_EQ(*args->Integer("count", 0), 3);
  EXPECT_THAT(args->All("name"), ElementsAre("x", "y=z"));
  EXPECT_TRUE(args->Has("fast"));
  EXPECT_THAT(args->arguments(), ElementsAre("a", "--b"));
  EXPECT_EQ(args->in_order()[0].second, "a");
}

TEST(Args, MinusAloneAndNegativeNumbersAreValues) {
  const auto args = Parse({"-", "--count", "-5"});
  ASSERT_TRUE(args.ok()) << args.status();
  EXPECT_THAT(args->arguments(), ElementsAre("-"));
  EXPECT_EQ(*args->Integer("count", 0), -5);
}

TEST(Args, EveryMistakeIsNamed) {
  const auto message = [](std::vector<std::string> words) {
    return std::string(Parse(words).status().message());
  };
  EXPECT_THAT(message({"--cuont", "3"}), HasSubstr("did you mean --count?"));
  EXPECT_THAT(message({"--zzzzzz"}), HasSubstr("unknown flag --zzzzzz"));
  EXPECT_THAT(message({"--count"}), HasSubstr("--count needs a value"));
  EXPECT_THAT(message({"--count", "1", "--count", "2"}), HasSubstr("twice"));
  EXPECT_THAT(message({"--fast=1"}), HasSubstr("takes no value"));
  EXPECT_THAT(message({"a", "b", "c"}), HasSubstr("unexpected word \"c\""));
  EXPECT_THAT(message({"-x"}), HasSubstr("unknown flag -x"));
}

TEST(Args, NumbersAreChecked) {
  const auto args = Parse({"--count", "3x"});
  ASSERT_TRUE(args.ok());
  EXPECT_THAT(std::string(args->Integer("count", 0).status().message()),
              HasSubstr("--count: \"3x\" is not a whole number"));
  EXPECT_FALSE(Parse({"--count", "nan"})->Number("count", 0).ok());
  EXPECT_EQ(*Parse({})->Number("count", 1.5), 1.5);
}

TEST(Args, HelpFitsTheTerminal) {
  const std::string help = HelpText(Spec(), 80);
  for (const std::string& line : WrapText(help, 1000)) EXPECT_LE(DisplayWidth(line), 80) << line;
  EXPECT_THAT(help, HasSubstr("-n, --name TEXT"));
  EXPECT_THAT(help, HasSubstr("videonsa do THING..."));
}

}  // namespace
}  // namespace videonsa::client
