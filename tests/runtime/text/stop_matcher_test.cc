#include "runtime/text/stop_matcher.h"

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/text/utf8.h"
#include "tests/runtime/text/test_tokenizer.h"

namespace videonsa {
namespace {

TEST(StopMatcherTest, FindsAStopAcrossFragments) {
  StopMatcher matcher = *StopMatcher::Create({"\n\nQ:"});
  EXPECT_EQ(matcher.Append("answer\n"), "answer");
  EXPECT_EQ(matcher.Append("\nQ"), "");
  EXPECT_FALSE(matcher.matched().has_value());
  EXPECT_EQ(matcher.Append(": more"), "");
  EXPECT_EQ(matcher.matched(), "\n\nQ:");
  EXPECT_EQ(matcher.Append("ignored"), "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, HoldsBackOnlyWhatCouldStillBecomeAStop) {
  StopMatcher matcher = *StopMatcher::Create({"aab"});
  EXPECT_EQ(matcher.Append("xaa"), "x");
  EXPECT_EQ(matcher.Append("a"), "a");
  EXPECT_EQ(matcher.Append("c"), "aac");
  EXPECT_EQ(matcher.Append("a"), "");
  EXPECT_EQ(matcher.Finish(), "a");
}

TEST(StopMatcherTest, FirstToEndWinsThenTheLongest) {
  StopMatcher first = *StopMatcher::Create({"abcd", "bc"});
  EXPECT_EQ(first.Append("xabcd"), "xa");
  EXPECT_EQ(first.matched(), "bc");
  StopMatcher longest = *StopMatcher::Create({"c", "abc", "bc"});
  EXPECT_EQ(longest.Append("xabcd"), "x");
  EXPECT_EQ(longest.matched(), "abc");
}

TEST(StopMatcherTest, NoStopsPassEverything) {
  StopMatcher matcher = *StopMatcher::Create({});
  EXPECT_EQ(matcher.Append("abc"), "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, RefusesBadStops) {
  for (const std::vector<std::string>& stops : {std::vector<std::string>{""},
                                                {std::string(65, 'a')},
                                                {"\xFF"},
                                                std::vector<std::string>(9, "a")}) {
    EXPECT_EQ(ReasonOf(StopMatcher::Create(stops).status()), "FIELD_INVALID");
  }
  EXPECT_TRUE(StopMatcher::Create(std::vector<std::string>(8, std::string(64, 'a'))).ok());
}

// What the matcher must do, by searching the whole text for every end.
std::string SlowAnswer(const std::string& text, const std::vector<std::string>& stops,
                       std::optional<std::string>& matched) {
  for (size_t end = 1; end <= text.size(); ++end) {
    for (const std::string& stop : stops) {
      const bool ends =
          end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0;
      if (ends && (!matched.has_value() || stop.size() > matched->size())) matched = stop;
    }
    if (matched.has_value()) return text.substr(0, end - matched->size());
  }
  return text;
}

TEST(StopMatcherTest, AgreesWithASearchOfTheWholeText) {
  std::mt19937 random(5);
  const std::vector<std::string> letters = {"a", "b", "\xC3\xA9", "\xC3\xA8"};
  const auto word = [&](int length) {
    std::string out;
    for (int i = 0; i < length; ++i) out += letters[random() % letters.size()];
    return out;
  };
  int matches = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (int i = 1 + static_cast<int>(random() % 3); i > 0; --i) {
      stops.push_back(word(2 + static_cast<int>(random() % 4)));
    }
    const std::string text = word(static_cast<int>(random() % 30));
    std::optional<std::string> expected_match;
    const std::string expected = SlowAnswer(text, stops, expected_match);
    StopMatcher matcher = *StopMatcher::Create(stops);
    std::string answer;
    for (size_t i = 0; i < text.size();) {  // fragments of whole characters
      size_t end = i;
      for (int n = 1 + static_cast<int>(random() % 4); n > 0 && end < text.size(); --n) {
        end += NextUtf8Unit(absl::string_view(text).substr(end)).length;
      }
      const std::string shown = matcher.Append(absl::string_view(text).substr(i, end - i));
      ASSERT_EQ(FindInvalidUtf8(shown), absl::string_view::npos);
      answer += shown;
      i = end;
    }
    answer += matcher.Finish();
    ASSERT_EQ(answer, expected);
    ASSERT_EQ(matcher.matched(), expected_match);
    matches += expected_match.has_value();
  }
  EXPECT_GT(matches, 500);
}

}  // namespace
}  // namespace videonsa
