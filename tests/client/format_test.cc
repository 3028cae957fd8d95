#include "client/format.h"

#include <gtest/gtest.h>

namespace videonsa::client {
namespace {

TEST(Format, DurationsForPeople) {
  EXPECT_EQ(HumanDuration(absl::ZeroDuration()), "0 s");
  EXPECT_EQ(HumanDuration(absl::Microseconds(350)), "350 µs");
  EXPECT_EQ(HumanDuration(absl::Microseconds(4200)), "4.2 ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(120)), "120 ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(3210)), "3.21 s");
  EXPECT_EQ(HumanDuration(absl::Seconds(59.94)), "59.9 s");
  EXPECT_EQ(HumanDuration(absl::Seconds(125)), "2 min 5 s");
  EXPECT_EQ(HumanDuration(absl::Hours(2)), "2 h 0 min");
}

TEST(Format, NumbersForPeople) {
  EXPECT_EQ(Grouped(0), "0");
  EXPECT_EQ(Grouped(999), "999");
  EXPECT_EQ(Grouped(1234567), "1,234,567");
  EXPECT_EQ(Grouped(-1000), "-1,000");
  EXPECT_EQ(Grouped(INT64_MIN), "-9,223,372,036,854,775,808");
  EXPECT_EQ(HumanBytes(512), "512 B");
  EXPECT_EQ(HumanBytes(999.7), "1.00 kB");
  EXPECT_EQ(HumanBytes(3.4e6), "3.40 MB");
  EXPECT_EQ(Percent(0.113), "11.3 %");
  EXPECT_EQ(Percent(0.0036), "0.36 %");
  EXPECT_EQ(Percent(0.00001), "<0.01 %");
}

TEST(Format, ClipTimesBothWays) {
  EXPECT_EQ(ClipTime(absl::Seconds(4.5)), "4.5 s");
  EXPECT_EQ(ClipTime(absl::Seconds(64.5)), "1:04.5");
  EXPECT_EQ(ClipTime(absl::Seconds(3723)), "1:02:03");
  for (const auto& [text, seconds] : std::vector<std::pair<std::string, double>>{
           {"90", 90}, {"90s", 90}, {"1m30s", 90}, {"1:30", 90}, {"0:01:30.5", 90.5}, {"0", 0}}) {
    ASSERT_TRUE(ParseClipTime(text).ok()) << text;
    EXPECT_EQ(*ParseClipTime(text), absl::Seconds(seconds)) << text;
  }
  for (const std::string text :
       {"", "x", "-3", "1:2:3:4", "1:-2", "nan", "inf", "1e300", "10 s x"}) {
    EXPECT_FALSE(ParseClipTime(text).ok()) << text;
  }
}

TEST(Format, DurationsSurviveTheProtocol) {
  for (const absl::Duration duration :
       {absl::ZeroDuration(), absl::Nanoseconds(1), absl::Seconds(1.5), -absl::Seconds(2.25)}) {
    EXPECT_EQ(FromProto(ToProto(duration)), duration);
  }
}

TEST(Format, PrintableTextCannotDriveATerminal) {
  EXPECT_EQ(PrintableText("a\x1b[31mb\r\n\tc"), "a?[31mb?\n\tc");
  EXPECT_EQ(PrintableText("\xc2\x9b"), "?");      // C1 control
  EXPECT_EQ(PrintableText("\xe2\x80\xae"), "?");  // right-to-left override
  EXPECT_EQ(PrintableText("grün 日本 🎬"), "grün 日本 🎬");
  EXPECT_EQ(PrintableText("\xff\x80"), "\xef\xbf\xbd\xef\xbf\xbd");
}

TEST(Format, Utf8IsCheckedStrictly) {
  EXPECT_TRUE(IsUtf8("grün 日本 🎬"));
  for (const char* bad :
       {"\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_FALSE(IsUtf8(bad));
  }
}

TEST(Format, WidthsAndCuts) {
  EXPECT_EQ(DisplayWidth("日本"), 4);
  EXPECT_EQ(DisplayWidth("é█"), 2);
  EXPECT_EQ(Ellipsize("short", 10), "short");
  EXPECT_EQ(Ellipsize("a long name", 6), "a lon…");
  EXPECT_EQ(Ellipsize("日本語", 4), "日…");
  EXPECT_EQ(WrapText("one two three", 7), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(WrapText("a\n\nb", 7), (std::vector<std::string>{"a", "", "b"}));
}

}  // namespace
}  // namespace videonsa::client
