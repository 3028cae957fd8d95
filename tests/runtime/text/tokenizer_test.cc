#include "runtime/text/tokenizer.h"

#include <chrono>
#include <map>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/text/nfc.h"
#include "runtime/text/utf8.h"
#include "tests/runtime/text/test_tokenizer.h"

namespace videonsa {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

void ExpectVectors(const Tokenizer& tokenizer) {
  const nlohmann::json vectors = nlohmann::json::parse(ReadTextData("vectors.json"));
  ASSERT_GT(vectors.size(), 400u);
  for (const auto& vector : vectors) {
    const std::string text = vector["text"];
    const auto with_special = tokenizer.EncodeWithSpecial(text);
    ASSERT_TRUE(with_special.ok()) << with_special.status();
    EXPECT_EQ(*with_special, vector["ids"].get<std::vector<int32_t>>()) << text;
    const auto ids = tokenizer.Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, vector["ids_as_text"].get<std::vector<int32_t>>()) << text;
    std::string storage;
    EXPECT_EQ(tokenizer.Decode(*ids, /*keep_special=*/true), NormalizeNfc(text, storage));
  }
}

TEST(TokenizerTest, AgreesWithTheReference) { ExpectVectors(SmallTokenizer()); }

TEST(TokenizerTest, VocabFilesGiveTheSameIds) {
  const auto tokenizer = Tokenizer::Load(TextDataPath("vocab_files"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectVectors(**tokenizer);
}

TEST(TokenizerTest, TextNeverBecomesASpecialToken) {
  const Tokenizer& tokenizer = SmallTokenizer();
  std::vector<std::string> names;
  for (int32_t id = 0; id < tokenizer.id_limit(); ++id) {
    if (tokenizer.IsSpecial(id)) names.emplace_back(tokenizer.BytesOf(id));
  }
  ASSERT_EQ(names.size(), 14u);
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int part = 0; part < 6; ++part) {
      const std::string& name = names[random() % names.size()];
      const size_t begin = random() % 3 == 0 ? random() % name.size() : 0;
      const size_t length = random() % 3 == 0 ? random() % name.size() : name.size();
      text += name.substr(begin, length);
      if (random() % 4 == 0) text += "\n \xEF\xBD\x9C";  // U+FF5C, a look-alike of the bar
    }
    const auto ids = tokenizer.Encode(text);
    ASSERT_TRUE(ids.ok());
    for (const int32_t id : *ids) ASSERT_FALSE(tokenizer.IsSpecial(id)) << text;
    ASSERT_EQ(tokenizer.Decode(*ids), text);
  }
}

TEST(TokenizerTest, DecodeDropsSpecialAndUnknownIds) {
  const Tokenizer& tokenizer = SmallTokenizer();
  const int32_t end = *tokenizer.AddedTokenId("<|im_end|>");
  const int32_t call = *tokenizer.AddedTokenId("<tool_call>");
  std::vector<int32_t> ids = *tokenizer.Encode("in");
  ids.insert(ids.end(), {end, call, -1, 1 << 30, tokenizer.id_limit()});
  EXPECT_EQ(tokenizer.Decode(ids), "in<tool_call>");
  EXPECT_EQ(tokenizer.Decode(ids, /*keep_special=*/true), "in<|im_end|><tool_call>");
}

TEST(TokenizerTest, RefusesInvalidUtf8) {
  const auto ids = SmallTokenizer().Encode("ab\xFFz");
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(ids.status()), "FIELD_INVALID");
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("byte 2"));
}

// A quadratic step would take minutes on a million bytes of any of these.
TEST(TokenizerTest, HostileTextTakesLinearTime) {
  for (const char* unit :
       {"a", "in", " ", "\n", " \n", "7", "=", "'", "\xCC\x81", "\xCC\xA3\xCC\x81", "<|im_end|>",
        "<|im_en", "\xE4\xB8\xAD", "\xE1\x84\x92"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    const auto begin = std::chrono::steady_clock::now();
    const auto ids = SmallTokenizer().Encode(text);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    ASSERT_TRUE(ids.ok()) << ids.status();
    std::string storage;
    EXPECT_EQ(SmallTokenizer().Decode(*ids), NormalizeNfc(text, storage));
    EXPECT_LT(seconds.count(), 30) << unit;
  }
}

// Merges strings, one at a time, as the definition of BPE says.
std::vector<int32_t> SlowBpe(const std::string& word, const nlohmann::json& model) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (const std::string merge : model["merges"]) {
    const size_t space = merge.find(' ');
    ranks.emplace(std::make_pair(merge.substr(0, space), merge.substr(space + 1)), ranks.size());
  }
  std::vector<std::string> tokens;
  for (const char c : word) tokens.emplace_back(1, c);
  while (true) {
    size_t best = tokens.size(), best_rank = ranks.size();
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto found = ranks.find({tokens[i], tokens[i + 1]});
      if (found != ranks.end() && found->second < best_rank) {
        best = i;
        best_rank = found->second;
      }
    }
    if (best == tokens.size()) break;
    tokens[best] += tokens[best + 1];
    tokens.erase(tokens.begin() + best + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& token : tokens) ids.push_back(model["vocab"][token].get<int32_t>());
  return ids;
}

// Pieces up to 64 bytes and longer ones are merged by different code.
TEST(TokenizerTest, MergesAsDefined) {
  const nlohmann::json model = nlohmann::json::parse(ReadTextData("small/tokenizer.json"))["model"];
  std::mt19937 random(2);
  for (int i = 0; i < 60; ++i) {
    std::string word;
    const int length = 1 + static_cast<int>(random() % 150);
    for (int k = 0; k < length; ++k) word += "aeinorsthld"[random() % 11];
    EXPECT_EQ(*SmallTokenizer().Encode(word), SlowBpe(word, model)) << word;
  }
}

TEST(TokenizerTest, ManyThreadsAgree) {
  const auto tokenizer = Tokenizer::Load(TextDataPath("small"));
  ASSERT_TRUE(tokenizer.ok());
  const std::string text = "the thing is in the rest of an entire station, then again";
  const std::vector<int32_t> expected = *SmallTokenizer().Encode(text);
  std::vector<std::vector<int32_t>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) result = *(*tokenizer)->Encode(text);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_THAT(result, ElementsAreArray(expected));
}

}  // namespace
}  // namespace videonsa
