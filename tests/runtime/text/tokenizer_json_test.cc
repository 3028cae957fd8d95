#include "runtime/text/tokenizer_json.h"

#include <filesystem>
#include <functional>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/text/test_tokenizer.h"

namespace videonsa {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const json& SmallJson() {
  static const json* const parsed = new json(json::parse(ReadTextData("small/tokenizer.json")));
  return *parsed;
}

absl::Status LoadChanged(const std::function<void(json&)>& change) {
  json changed = SmallJson();
  change(changed);
  return Tokenizer::FromJson(changed.dump()).status();
}

void ExpectRefused(const absl::Status& status, const std::string& part) {
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_EQ(ReasonOf(status), "MODEL_INVALID") << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(part));
}

TEST(TokenizerJsonTest, UnchangedIsAccepted) {
  EXPECT_TRUE(LoadChanged([](json&) {}).ok());
}

TEST(TokenizerJsonTest, RefusesBadIds) {
  ExpectRefused(LoadChanged([](json& j) { j["model"]["vocab"]["a"] = 1 << 22; }), "4194304");
  ExpectRefused(LoadChanged([](json& j) { j["model"]["vocab"]["a"] = -1; }), "whole number");
  ExpectRefused(LoadChanged([](json& j) { j["model"]["vocab"]["a"] = 1.5; }), "whole number");
  ExpectRefused(LoadChanged([](json& j) { j["model"]["vocab"]["a"] = "1"; }), "whole number");
  ExpectRefused(LoadChanged([](json& j) { j["model"]["vocab"]["a"] = json::array(); }),
                "whole number");
  ExpectRefused(LoadChanged([](json& j) { j["model"]["vocab"]["a"] = 5; }), "same id 5");
  ExpectRefused(LoadChanged([](json& j) { j["added_tokens"][0]["id"] = 5; }), "same id 5");
  ExpectRefused(LoadChanged([](json& j) { j["added_tokens"][0]["id"] = 1 << 30; }), "limit");
  ExpectRefused(LoadChanged([](json& j) { j["added_tokens"][1]["content"] = "<|endoftext|>"; }),
                "two ids");
  ExpectRefused(LoadChanged([](json& j) { j["model"]["vocab"].erase("a"); }), "0x61");
}

TEST(TokenizerJsonTest, RefusesBadMerges) {
  const auto merges = [](const std::function<void(json&)>& change) {
    return LoadChanged([&](json& j) { change(j["model"]["merges"]); });
  };
  ExpectRefused(merges([](json& m) { m[3] = "zz qq"; }), "merge 3");
  ExpectRefused(merges([](json& m) { m[3] = "a"; }), "merge 3");
  ExpectRefused(merges([](json& m) { m[3] = "a b c"; }), "merge 3");
  ExpectRefused(merges([](json& m) { m[3] = 7; }), "merge 3");
  ExpectRefused(merges([](json& m) { m[3] = json::array({"a"}); }), "merge 3");
  ExpectRefused(merges([](json& m) { m[3] = json::array({"a", "b", "c"}); }), "merge 3");
  ExpectRefused(merges([](json& m) { m[3] = json::array({"a", json::array()}); }), "merge 3");
  ExpectRefused(merges([](json& m) { m = "x"; }), "merges");
}

TEST(TokenizerJsonTest, PairsAreAcceptedAsMerges) {
  json changed = SmallJson();
  for (json& merge : changed["model"]["merges"]) {
    const std::string text = merge;
    const size_t space = text.find(' ');
    merge = json::array({text.substr(0, space), text.substr(space + 1)});
  }
  const auto tokenizer = Tokenizer::FromJson(changed.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode(" the thing"), *SmallTokenizer().Encode(" the thing"));
}

// A special token that merging could make would let text become it.
TEST(TokenizerJsonTest, RefusesSpecialTokensThatTextCouldBecome) {
  ExpectRefused(LoadChanged([](json& j) {
                  j["added_tokens"].push_back(
                      {{"id", j["model"]["vocab"]["in"]}, {"content", "in"}, {"special", true}});
                }),
                "result of a merge");
  ExpectRefused(LoadChanged([](json& j) {
                  j["added_tokens"].push_back(
                      {{"id", j["model"]["vocab"]["a"]}, {"content", "a"}, {"special", true}});
                }),
                "token of a byte");
}

TEST(TokenizerJsonTest, RefusesWhatIsNotImplemented) {
  ExpectRefused(LoadChanged([](json& j) { j["model"]["type"] = "Unigram"; }), "not BPE");
  ExpectRefused(LoadChanged([](json& j) { j["model"]["dropout"] = 0.1; }), "dropout");
  ExpectRefused(LoadChanged([](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }), "suffix");
  ExpectRefused(LoadChanged([](json& j) { j["normalizer"]["type"] = "NFKC"; }), "NFKC");
  ExpectRefused(LoadChanged([](json& j) { j["added_tokens"][0]["lstrip"] = true; }), "lstrip");
  ExpectRefused(LoadChanged([](json& j) { j["decoder"] = nullptr; }), "decoder");
  ExpectRefused(LoadChanged([](json& j) { j["pre_tokenizer"] = nullptr; }), "ByteLevel");
  ExpectRefused(
      LoadChanged([](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; }),
      "Isolated");
  ExpectRefused(LoadChanged([](json& j) {
                  j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a";
                }),
                "does not compile");
}

TEST(TokenizerJsonTest, RefusesTextThatIsNoTokenizer) {
  for (const std::string text :
       {"", "{", "[]", "{}", "null", "{\"model\": 1}", "{\"model\": {\"vocab\": {}}}",
        "{\"model\": {\"vocab\": [], \"merges\": []}}", "\xFF", "{\"a\":1,\"a\":2}"}) {
    ExpectRefused(Tokenizer::FromJson(text).status(), "");
  }
  ExpectRefused(Tokenizer::FromJson(std::string(5'000'000, '[')).status(), "nested");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  ExpectRefused(Tokenizer::FromJson(deep).status(), "nested");
  ExpectRefused(Tokenizer::FromJson("{\"a\":1e999}").status(), "");
}

TEST(TokenizerJsonTest, EveryTruncationIsRefused) {
  const std::string text = ReadTextData("small/tokenizer.json");
  for (size_t length = 0; length + 2 < text.size(); length += 97) {
    ASSERT_FALSE(Tokenizer::FromJson(text.substr(0, length)).ok()) << length;
  }
}

TEST(TokenizerJsonTest, DamagedBytesNeverCrash) {
  const std::string text = ReadTextData("small/tokenizer.json");
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    std::string damaged = text;
    for (int k = 0; k < 3; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    const auto tokenizer = Tokenizer::FromJson(damaged);
    if (tokenizer.ok()) {
      EXPECT_TRUE((*tokenizer)->Encode("The thing <|im_end|>").ok());
    } else {
      EXPECT_EQ(ReasonOf(tokenizer.status()), "MODEL_INVALID") << tokenizer.status();
    }
  }
}

// A pattern that needs exponential time ends with an error.
TEST(TokenizerJsonTest, RunawayPatternsGiveUp) {
  json changed = SmallJson();
  changed["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(?:(?:a|aa)+)+$";
  const auto tokenizer = Tokenizer::FromJson(changed.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode(std::string(200, 'a') + "b");
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(ids.status()), "TEXT_TOO_COMPLEX");
}

TEST(TokenizerJsonTest, MissingFilesAreNamed) {
  const auto none = Tokenizer::Load(testing::TempDir() + "no_such_folder");
  EXPECT_EQ(ReasonOf(none.status()), "MODEL_INVALID");
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("tokenizer.json: missing"));
  const std::string dir = testing::TempDir() + "vocab_only";
  std::filesystem::create_directories(dir);
  std::filesystem::copy_file(TextDataPath("vocab_files/vocab.json"), dir + "/vocab.json",
                             std::filesystem::copy_options::overwrite_existing);
  const auto vocab_only = Tokenizer::Load(dir);
  EXPECT_EQ(ReasonOf(vocab_only.status()), "MODEL_INVALID");
  EXPECT_THAT(std::string(vocab_only.status().message()), HasSubstr("merges.txt: missing"));
}

}  // namespace
}  // namespace videonsa
