#include "client/openai/chat_response.h"

#include <gtest/gtest.h>

#include "nlohmann/json.hpp"
#include "tests/client/fake_server.h"

namespace videonsa::openai {
namespace {

using nlohmann::json;

const AnswerHead kHead = {.id = "chatcmpl-1", .created = 1700000000, .model = "demo"};

TEST(ChatResponseTest, WholeAnswerHasTextReasonAndUsage) {
  v1::AskResult result = client::SampleResult();
  result.set_text("Two \"foxes\"\n\xF0\x9F\xA6\x8A");
  const json body = json::parse(CompletionJson(kHead, result));
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["id"], "chatcmpl-1");
  EXPECT_EQ(body["created"], 1700000000);
  EXPECT_EQ(body["model"], "demo");
  ASSERT_EQ(body["choices"].size(), 1U);
  EXPECT_EQ(body["choices"][0]["message"]["content"], "Two \"foxes\"\n\xF0\x9F\xA6\x8A");
  EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 4136);
  EXPECT_EQ(body["usage"]["completion_tokens"], 12);
  EXPECT_EQ(body["usage"]["total_tokens"], 4148);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["video_tokens"], 4096);
  EXPECT_EQ(body["videonsa"]["finish_reason"], "STOP");
  EXPECT_NEAR(body["videonsa"]["budget_fraction"].get<double>(), 0.115, 1e-12);
  EXPECT_NEAR(body["videonsa"]["time_to_first_token_s"].get<double>(), 3.2, 1e-12);
}

TEST(ChatResponseTest, TextThatIsNotUtf8DoesNotThrow) {
  v1::AskResult result;
  const std::string chunk = TextChunk(kHead, "a\xFFz");
  EXPECT_EQ(json::parse(chunk)["choices"][0]["delta"]["content"], "a\xEF\xBF\xBDz");
}

TEST(ChatResponseTest, ChunksCarryOneThingEach) {
  const v1::AskResult result = client::SampleResult();
  const json role = json::parse(RoleChunk(kHead));
  EXPECT_EQ(role["object"], "chat.completion.chunk");
  EXPECT_EQ(role["choices"][0]["delta"]["role"], "assistant");
  EXPECT_TRUE(role["choices"][0]["finish_reason"].is_null());
  const json text = json::parse(TextChunk(kHead, "fox"));
  EXPECT_EQ(text["choices"][0]["delta"]["content"], "fox");
  const json finish = json::parse(FinishChunk(kHead, result));
  EXPECT_TRUE(finish["choices"][0]["delta"].empty());
  EXPECT_EQ(finish["choices"][0]["finish_reason"], "stop");
  const json usage = json::parse(UsageChunk(kHead, result));
  EXPECT_TRUE(usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"], 12);
  EXPECT_EQ(SseEvent("{}"), "data: {}\n\n");
}

TEST(ChatResponseTest, CutAnswersAreOfLength) {
  EXPECT_STREQ(FinishReasonOf(v1::AskResult::FINISH_REASON_STOP), "stop");
  for (const auto reason :
       {v1::AskResult::FINISH_REASON_LENGTH, v1::AskResult::FINISH_REASON_CONTEXT,
        v1::AskResult::FINISH_REASON_DEADLINE, v1::AskResult::FINISH_REASON_DRAIN}) {
    EXPECT_STREQ(FinishReasonOf(reason), "length");
  }
}

TEST(ChatResponseTest, NamesTheModel) {
  v1::ModelInfo model;
  model.set_name("demo");
  model.set_max_context_tokens(4096);
  const json list = json::parse(ModelListJson(model, 5));
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 1U);
  EXPECT_EQ(list["data"][0], json::parse(ModelJson(model, 5)));
  EXPECT_EQ(list["data"][0]["id"], "demo");
  EXPECT_EQ(list["data"][0]["object"], "model");
  EXPECT_EQ(list["data"][0]["created"], 5);
}

}  // namespace
}  // namespace videonsa::openai
