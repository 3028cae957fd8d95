#include "client/openai/chat_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/error.h"
#include "client/openai/data_urls.h"

namespace videonsa::openai {
namespace {

std::string Body(const std::string& more) {
  return absl::StrCat(R"({"model": "m", "messages": [{"role": "user", "content": "hi"}])",
                      more.empty() ? "" : ", ", more, "}");
}

std::string WithContent(const std::string& content) {
  return absl::StrCat(R"({"model": "m", "messages": [{"role": "user", "content": )", content,
                      "}]}");
}

// The body with `url` as its clip, as a caller may write it.
std::string BodyWithClip(const std::string& url) {
  return absl::StrCat(R"({"model": "m", "messages": [{"role": "user", "content": [)",
                      R"({"type": "video_url", "video_url": {"url" : ")", url,
                      R"(", "num_frames": 4}}, {"type": "text", "text": "What?"}]}]})");
}

TEST(DataUrls, LargeOnesGoAroundTheParserAndMeanTheSame) {
  for (const size_t size : {10u, 3000u, 3100u, 100'000u}) {
    std::string bytes;
    for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(i * 7));
    const std::string url = absl::StrCat("data:video/mp4;base64,", absl::Base64Escape(bytes));
    const std::string body = BodyWithClip(url);
    EXPECT_EQ(DataUrls(body).json().size() < body.size(), url.size() >= DataUrls::kLeastBytes);
    const auto request = ParseChatRequest(body);
    ASSERT_TRUE(request.ok()) << request.status();
    const v1::ClipInput& clip = request->question.turns(0).parts(0).clip();
    EXPECT_EQ(clip.inline_data(), bytes);
    EXPECT_EQ(clip.sampling().num_frames(), 4);
    EXPECT_EQ(request->question.turns(0).parts(1).text(), "What?");
  }
}

TEST(DataUrls, OnlyUrlsAreTakenOutAndOnlyPlainOnes) {
  const std::string data = absl::StrCat("data:text/plain;base64,", std::string(8000, 'A'));
  const auto text_of = [](const std::string& body) {
    const auto request = ParseChatRequest(body);
    EXPECT_TRUE(request.ok()) << request.status();
    return request.ok() ? request->question.turns(0).parts(0).text() : "";
  };
  // A text that looks like one, as a value, in an array and behind an escaped quote, stays a text.
  const std::string head = R"({"model": "m", "messages": [{"role": "user", "content": )";
  EXPECT_EQ(text_of(absl::StrCat(head, "\"", data, "\"}]}")), data);
  EXPECT_EQ(text_of(absl::StrCat(head, R"("\"url\": \")", data, R"(\""}]})")),
            absl::StrCat("\"url\": \"", data, "\""));
  EXPECT_EQ(text_of(absl::StrCat(head, R"("\\"}], "user": ")", data, "\"}")), "\\");
  EXPECT_EQ(text_of(absl::StrCat(head, R"("data:#0"}], "user": ")", data, "\"}")), "data:#0");
  // What is not plain is the parser's: an escape is decoded, a control character refused.
  const std::string escaped = absl::StrCat("data:video/mp4;base64,", std::string(8000, 'A'));
  std::string slash = escaped;
  slash.replace(5, 6, "video\\/");
  EXPECT_EQ(DataUrls(BodyWithClip(slash)).json(), BodyWithClip(slash));
  EXPECT_EQ(ParseChatRequest(BodyWithClip(slash))->question.SerializeAsString(),
            ParseChatRequest(BodyWithClip(escaped))->question.SerializeAsString());
  EXPECT_FALSE(ParseChatRequest(BodyWithClip(escaped + "\n")).ok());
  EXPECT_FALSE(ParseChatRequest(BodyWithClip(escaped + "\x80")).ok());
  EXPECT_FALSE(ParseChatRequest(BodyWithClip(escaped + "%")).ok());
  EXPECT_FALSE(ParseChatRequest(BodyWithClip("data:#0")).ok());
  EXPECT_FALSE(ParseChatRequest(BodyWithClip(escaped).substr(0, 5000)).ok());
  EXPECT_FALSE(ParseChatRequest(BodyWithClip(escaped) + "\"").ok());
}

TEST(ChatRequestTest, TranslatesTurnsAndGeneration) {
  const auto request = ParseChatRequest(R"({
    "model": "demo",
    "messages": [
      {"role": "system", "content": "Be short."},
      {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
      {"role": "user", "content": "What is it?"},
      {"role": "assistant", "content": "A cat."},
      {"role": "user", "content": [
        {"type": "video_url", "video_url": {"url": "https://a.example/x.mp4", "fps": 2, "max_frames": 64}},
        {"type": "text", "text": "Where?"}]}],
    "max_completion_tokens": 7, "temperature": 0, "top_p": 0.5, "top_k": 3, "seed": 18446744073709551615,
    "stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true}, "n": 1, "user": "u",
    "presence_penalty": 0, "response_format": {"type": "text"}, "tools": [], "logprobs": null,
    "videonsa": {"attention": {"mode": "MODE_DENSE"}, "priority": "PRIORITY_BATCH"}})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->model, "demo");
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  EXPECT_EQ(request->leading_system, 2);
  const v1::Question& question = request->question;
  EXPECT_EQ(question.system_instruction(), "Be short.\n\nBe kind.");
  ASSERT_EQ(question.turns_size(), 3);
  EXPECT_EQ(question.turns(0).parts(0).text(), "What is it?");
  EXPECT_EQ(question.turns(1).role(), v1::Turn::ROLE_ASSISTANT);
  EXPECT_EQ(question.turns(1).parts(0).text(), "A cat.");
  ASSERT_EQ(question.turns(2).parts_size(), 2);
  const v1::ClipInput& clip = question.turns(2).parts(0).clip();
  EXPECT_EQ(clip.url(), "https://a.example/x.mp4");
  EXPECT_EQ(clip.sampling().fps(), 2);
  EXPECT_EQ(clip.sampling().max_frames(), 64);
  const v1::GenerationConfig& generation = question.generation();
  EXPECT_EQ(generation.max_output_tokens(), 7);
  EXPECT_TRUE(generation.has_temperature());
  EXPECT_EQ(generation.temperature(), 0);
  EXPECT_EQ(generation.top_p(), 0.5F);
  EXPECT_EQ(generation.top_k(), 3);
  EXPECT_EQ(generation.seed(), 18446744073709551615U);
  EXPECT_THAT(generation.stop(), testing::ElementsAre("a", "b"));
  EXPECT_EQ(question.attention().mode(), v1::AttentionConfig::MODE_DENSE);
  EXPECT_EQ(question.priority(), v1::PRIORITY_BATCH);
}

TEST(ChatRequestTest, UnsetIsNotZero) {
  const auto request = ParseChatRequest(Body(R"("temperature": null)"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_FALSE(request->question.generation().has_temperature());
  EXPECT_FALSE(request->question.generation().has_max_output_tokens());
  EXPECT_FALSE(request->stream);
}

TEST(ChatRequestTest, TakesEverySourceOfMedia) {
  const std::string bytes("\x00\x01\xFFvideo", 8);
  const auto request = ParseChatRequest(WithContent(
      absl::StrCat(R"([{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,)",
                   absl::Base64Escape(bytes), R"("}},
          {"type": "video_url", "video_url": "clips/abc"},
          {"type": "image_url", "image_url": {"url": "DATA:image/png;base64,AAEC", "detail": "low"}},
          {"type": "image_url", "image_url": {"url": "http://a.example/p.png", "max_pixels": 50176}}])")));
  ASSERT_TRUE(request.ok()) << request.status();
  const v1::Turn& turn = request->question.turns(0);
  EXPECT_EQ(turn.parts(0).clip().inline_data(), bytes);
  EXPECT_EQ(turn.parts(1).clip().clip(), "clips/abc");
  EXPECT_EQ(turn.parts(2).image().inline_data(), std::string("\x00\x01\x02", 3));
  EXPECT_EQ(turn.parts(2).image().max_pixels(), 512 * 512);
  EXPECT_EQ(turn.parts(3).image().url(), "http://a.example/p.png");
  EXPECT_EQ(turn.parts(3).image().max_pixels(), 50176);
}

struct Refusal {
  const char* body;
  const char* param;
  const char* reason;
};

class ChatRequestRefusals : public testing::TestWithParam<Refusal> {};

TEST_P(ChatRequestRefusals, NamesTheArgument) {
  const auto request = ParseChatRequest(GetParam().body);
  ASSERT_FALSE(request.ok());
  const client::ErrorDetails details = client::DetailsOf(request.status());
  EXPECT_EQ(details.code, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(details.reason, GetParam().reason) << details.message;
  ASSERT_EQ(details.fields.size(), 1U);
  EXPECT_EQ(details.fields[0].first, GetParam().param) << details.message;
  EXPECT_FALSE(details.message.empty());
}

#define MESSAGE(content) R"({"model": "m", "messages": [{"role": "user", "content": )" content "}]}"
#define MORE(text) R"({"model": "m", "messages": [{"role": "user", "content": "hi"}], )" text "}"

INSTANTIATE_TEST_SUITE_P(
    All, ChatRequestRefusals,
    testing::Values(
        Refusal{"", "", "BODY_NOT_JSON"}, Refusal{"[]", "", "BODY_NOT_JSON"},
        Refusal{"{\"model\": \"\xFF\"}", "", "BODY_NOT_JSON"},
        Refusal{R"({"messages": []})", "model", "FIELD_INVALID"},
        Refusal{R"({"model": "m"})", "messages", "FIELD_INVALID"},
        Refusal{R"({"model": "m", "messages": []})", "messages", "FIELD_INVALID"},
        Refusal{R"({"model": "m", "messages": null})", "messages", "FIELD_INVALID"},
        Refusal{R"({"model": "m", "messages": ["hi"]})", "messages[0]", "FIELD_INVALID"},
        Refusal{R"({"model": "m", "messages": [{"role": "system", "content": "x"}]})", "messages",
                "FIELD_INVALID"},
        Refusal{R"({"model": "m", "messages": [{"role": "tool", "content": "x"}]})",
                "messages[0].role", "UNSUPPORTED_PARAMETER"},
        Refusal{R"({"model": "m", "messages": [{"role": "user"}]})", "messages[0].content",
                "FIELD_INVALID"},
        Refusal{R"({"model": "m", "messages": [{"role": "user", "content": "a"},
                 {"role": "system", "content": "b"}]})",
                "messages[1].role", "UNSUPPORTED_PARAMETER"},
        Refusal{R"({"model": "m", "messages": [{"role": "assistant", "content": "a",
                 "tool_calls": [{"id": "1"}]}]})",
                "messages[0].tool_calls", "UNSUPPORTED_PARAMETER"},
        Refusal{MESSAGE("7"), "messages[0].content", "FIELD_INVALID"},
        Refusal{MESSAGE("[]"), "messages[0].content", "FIELD_INVALID"},
        Refusal{MESSAGE(R"([{"type": "input_audio", "input_audio": {}}])"),
                "messages[0].content[0].type", "UNSUPPORTED_PARAMETER"},
        Refusal{MESSAGE(R"([{"type": "text", "text": "a", "colour": 1}])"),
                "messages[0].content[0].colour", "UNKNOWN_PARAMETER"},
        Refusal{MESSAGE(R"([{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}])"),
                "messages[0].content[0].video_url.url", "FIELD_INVALID"},
        Refusal{MESSAGE(R"([{"type": "video_url", "video_url": {"url": "data:video/mp4,raw"}}])"),
                "messages[0].content[0].video_url.url", "FIELD_INVALID"},
        Refusal{MESSAGE(R"([{"type": "video_url", "video_url": {"url": "data:;base64,"}}])"),
                "messages[0].content[0].video_url.url", "FIELD_INVALID"},
        Refusal{MESSAGE(R"([{"type": "video_url", "video_url": {"url": "data:;base64,%%"}}])"),
                "messages[0].content[0].video_url.url", "FIELD_INVALID"},
        Refusal{MESSAGE(R"([{"type": "video_url", "video_url": {"url": "clips/a", "speed": 2}}])"),
                "messages[0].content[0].video_url", "FIELD_INVALID"},
        Refusal{
            MESSAGE(
                R"([{"type": "video_url", "video_url": {"url": "clips/a", "fps": 1, "num_frames": 4}}])"),
            "messages[0].content[0].video_url", "FIELD_INVALID"},
        Refusal{MESSAGE(R"([{"type": "image_url", "image_url": {"url": "clips/a", "fps": 1}}])"),
                "messages[0].content[0].image_url.fps", "UNKNOWN_PARAMETER"},
        Refusal{
            MESSAGE(R"([{"type": "image_url", "image_url": {"url": "clips/a", "detail": "x"}}])"),
            "messages[0].content[0].image_url.detail", "FIELD_INVALID"},
        Refusal{MORE(R"("colour": 1)"), "colour", "UNKNOWN_PARAMETER"},
        Refusal{MORE(R"("n": 2)"), "n", "UNSUPPORTED_PARAMETER"},
        Refusal{MORE(R"("tools": [{"type": "function"}])"), "tools", "UNSUPPORTED_PARAMETER"},
        Refusal{MORE(R"("logprobs": true)"), "logprobs", "UNSUPPORTED_PARAMETER"},
        Refusal{MORE(R"("presence_penalty": 0.5)"), "presence_penalty", "UNSUPPORTED_PARAMETER"},
        Refusal{MORE(R"("response_format": {"type": "json_object"})"), "response_format",
                "UNSUPPORTED_PARAMETER"},
        Refusal{MORE(R"("temperature": "hot")"), "temperature", "FIELD_INVALID"},
        Refusal{MORE(R"("max_tokens": 1.5)"), "max_tokens", "FIELD_INVALID"},
        Refusal{MORE(R"("max_tokens": 1e300)"), "max_tokens", "FIELD_INVALID"},
        Refusal{MORE(R"("max_tokens": 1, "max_completion_tokens": 2)"), "max_tokens",
                "FIELD_INVALID"},
        Refusal{MORE(R"("seed": -1)"), "seed", "FIELD_INVALID"},
        Refusal{MORE(R"("stop": 1)"), "stop", "FIELD_INVALID"},
        Refusal{MORE(R"("stop": [1])"), "stop", "FIELD_INVALID"},
        Refusal{MORE(R"("stream": 1)"), "stream", "FIELD_INVALID"},
        Refusal{MORE(R"("stream_options": {"x": 1})"), "stream_options.x", "UNKNOWN_PARAMETER"},
        Refusal{MORE(R"("videonsa": {"attention": {"mode": "MODE_ODD"}})"), "videonsa",
                "FIELD_INVALID"},
        Refusal{MORE(R"("videonsa": {"turns": []})"), "videonsa.turns", "UNKNOWN_PARAMETER"}));

TEST(ChatRequestTest, DeepNestingIsRefusedNotFollowed) {
  const std::string deep(200'000, '[');
  EXPECT_FALSE(ParseChatRequest(WithContent(deep)).ok());
  const std::string closed = deep + std::string(200'000, ']');
  EXPECT_FALSE(ParseChatRequest(WithContent(closed)).ok());
}

}  // namespace
}  // namespace videonsa::openai
