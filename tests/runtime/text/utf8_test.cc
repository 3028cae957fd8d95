#include "runtime/text/utf8.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace videonsa {
namespace {

std::string Lossy(absl::string_view bytes) {
  std::string out;
  EXPECT_EQ(AppendUtf8Lossy(bytes, /*flush=*/true, out), bytes.size());
  return out;
}

const std::string kReplacement = "\xEF\xBF\xBD";

TEST(Utf8Test, EveryCodePointIsValidAndComesBack) {
  for (char32_t code_point = 0; code_point < 0x110000; ++code_point) {
    if (code_point >= 0xD800 && code_point < 0xE000) continue;
    std::string text;
    AppendUtf8(code_point, text);
    ASSERT_EQ(FindInvalidUtf8(text), absl::string_view::npos) << static_cast<uint32_t>(code_point);
    ASSERT_EQ(static_cast<uint32_t>(DecodeUtf8(text)), static_cast<uint32_t>(code_point));
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const Utf8Unit unit = NextUtf8Unit(text.substr(0, cut));
      ASSERT_EQ(unit.kind, Utf8Unit::kIncomplete);
      ASSERT_EQ(unit.length, cut);
    }
  }
}

// The example of The Unicode Standard, section 3.9, table 3-8 and its neighbours.
TEST(Utf8Test, MaximalPartsBecomeOneReplacementEach) {
  const std::string& r = kReplacement;
  EXPECT_EQ(Lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(Lossy("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(Lossy("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(Lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  EXPECT_EQ(Lossy("ok\xF0\x9F\x98"), "ok" + r);
}

TEST(Utf8Test, FindsTheFirstInvalidByte) {
  EXPECT_EQ(FindInvalidUtf8(std::string(100, 'a') + "\xFF"), 100u);
  EXPECT_EQ(FindInvalidUtf8("\xE4\xB8\xAD\xE4\xB8"), 3u);
  EXPECT_EQ(FindInvalidUtf8(absl::string_view("\0\0", 2)), absl::string_view::npos);
}

}  // namespace
}  // namespace videonsa
