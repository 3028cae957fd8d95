#include "runtime/text/incremental_detokenizer.h"

#include <random>

#include "gtest/gtest.h"
#include "runtime/text/utf8.h"
#include "tests/runtime/text/test_tokenizer.h"

namespace videonsa {
namespace {

TEST(IncrementalDetokenizerTest, HoldsUnfinishedCharacters) {
  const Tokenizer& tokenizer = SmallTokenizer();
  const std::vector<int32_t> ids = *tokenizer.Encode("\xF0\x9F\x98\x80");
  ASSERT_GT(ids.size(), 1u) << "the small vocabulary has no token for this character";
  IncrementalDetokenizer stream(tokenizer);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(stream.Append(ids[i]), "");
  EXPECT_EQ(stream.Append(ids.back()), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.Append(ids[0]), "");
  EXPECT_EQ(stream.Finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(IncrementalDetokenizerTest, FragmentsJoinToTheWholeText) {
  const Tokenizer& tokenizer = SmallTokenizer();
  std::mt19937 random(4);
  const std::vector<int32_t> pieces =
      *tokenizer.Encode("\xF0\x9F\x98\x80\xE4\xB8\xAD\xC3\xA9 the\n");
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 30; ++i) {
      ids.push_back(random() % 3 == 0 ? static_cast<int32_t>(random() % (tokenizer.id_limit() + 3))
                                      : pieces[random() % pieces.size()]);
    }
    IncrementalDetokenizer stream(tokenizer);
    std::string joined;
    for (const int32_t id : ids) {
      const std::string fragment = stream.Append(id);
      ASSERT_EQ(FindInvalidUtf8(fragment), absl::string_view::npos);
      joined += fragment;
    }
    joined += stream.Finish();
    ASSERT_EQ(joined, tokenizer.Decode(ids));
  }
}

}  // namespace
}  // namespace videonsa
