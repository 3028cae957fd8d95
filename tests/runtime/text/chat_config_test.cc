#include "runtime/text/chat_config.h"

#include <filesystem>
#include <fstream>
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/text/test_tokenizer.h"

namespace videonsa {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ChatConfigTest : public testing::Test {
 protected:
  ChatConfigTest() : dir_(testing::TempDir() + "chat_config_test") {
    std::filesystem::create_directories(dir_);
    std::filesystem::remove(dir_ + "/generation_config.json");
    config_ = json::parse(ReadTextData("small/config.json"));
  }

  absl::StatusOr<ChatConfig> Read(const std::string& text) {
    std::ofstream(dir_ + "/config.json") << text;
    return ReadChatConfig(dir_, SmallTokenizer());
  }
  absl::StatusOr<ChatConfig> ReadChanged(const std::function<void(json&)>& change) {
    json changed = config_;
    change(changed);
    return Read(changed.dump());
  }
  void ExpectRefused(const absl::StatusOr<ChatConfig>& chat, const std::string& part) {
    EXPECT_EQ(chat.status().code(), absl::StatusCode::kFailedPrecondition) << chat.status();
    EXPECT_EQ(ReasonOf(chat.status()), "MODEL_INVALID");
    EXPECT_THAT(std::string(chat.status().message()), HasSubstr(part));
  }

  std::string dir_;
  json config_;
};

TEST_F(ChatConfigTest, ReadsIdsAndEndTokens) {
  const auto chat = ReadChatConfig(TextDataPath("small"), SmallTokenizer());
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(chat->tokens.im_start, *SmallTokenizer().AddedTokenId("<|im_start|>"));
  EXPECT_EQ(chat->tokens.video_pad, *SmallTokenizer().AddedTokenId("<|video_pad|>"));
  EXPECT_EQ(chat->tokens.tokens_per_second, 2);
  EXPECT_THAT(chat->end_token_ids, ElementsAre(958, 956));
  // Without generation_config.json the model's own, without that <|im_end|>.
  EXPECT_THAT(ReadChanged([](json& j) { j["eos_token_id"] = 956; })->end_token_ids,
              ElementsAre(956));
  EXPECT_THAT(ReadChanged([](json& j) { j.erase("eos_token_id"); })->end_token_ids,
              ElementsAre(958));
}

TEST_F(ChatConfigTest, ReadsTheNestedLayout) {
  const auto chat = ReadChanged([](json& j) {
    for (const char* key : {"vocab_size", "image_token_id", "eos_token_id"}) {
      j["text_config"][key] = j[key];
      j.erase(key);
    }
    j["vision_config"]["tokens_per_second"] = 4.0;
  });
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(chat->tokens.tokens_per_second, 4);
  EXPECT_THAT(chat->end_token_ids, ElementsAre(958));
}

TEST_F(ChatConfigTest, RefusesBadConfigs) {
  ExpectRefused(Read(""), "config.json: not JSON");
  ExpectRefused(Read("[]"), "not a JSON object");
  ExpectRefused(ReadChanged([](json& j) { j.erase("image_token_id"); }),
                "image_token_id is missing");
  ExpectRefused(ReadChanged([](json& j) { j["image_token_id"] = "5"; }), "image_token_id");
  ExpectRefused(ReadChanged([](json& j) { j["image_token_id"] = -5; }), "image_token_id");
  ExpectRefused(ReadChanged([](json& j) { j["image_token_id"] = 5; }), "not a special token");
  ExpectRefused(ReadChanged([](json& j) { j["image_token_id"] = j["video_token_id"]; }), "both");
  ExpectRefused(ReadChanged([](json& j) { j["vocab_size"] = 900; }), "vocab_size is 900");
  ExpectRefused(ReadChanged([](json& j) { j.erase("vision_config"); }), "vision_config");
  for (const json& bad : {json(0), json(1.5), json("2"), json(1e30), json(nullptr)}) {
    ExpectRefused(ReadChanged([&](json& j) { j["vision_config"]["tokens_per_second"] = bad; }),
                  "tokens_per_second");
  }
  ExpectRefused(ReadChanged([](json& j) {
                  j["eos_token_id"] = json::array({1, "x"});
                }),
                "eos_token_id");
  std::ofstream(dir_ + "/generation_config.json") << "{";
  ExpectRefused(Read(config_.dump()), "generation_config.json");
  std::filesystem::remove(dir_ + "/config.json");
  ExpectRefused(ReadChatConfig(dir_, SmallTokenizer()), "config.json: missing");
}

}  // namespace
}  // namespace videonsa
