#include "client/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "videonsa/v1/clip.pb.h"
#include "videonsa/v1/video_qa.pb.h"

namespace videonsa::client {
namespace {

using ::testing::HasSubstr;

TEST(Json, WriterNestsAndEscapes) {
  JsonWriter json(false);
  json.BeginObject().Key("a").BeginArray().Integer(1).Number(0.5).Null().Bool(true).EndArray();
  json.Key("b").String("q\"\\\n\x01</script>").Key("c").BeginObject().EndObject();
  json.Key("d").Number(NAN).EndObject();
  EXPECT_EQ(json.text(),
            "{\"a\": [1, 0.5, null, true], \"b\": \"q\\\"\\\\\\n\\u0001\\u003c/script>\", "
            "\"c\": {}, \"d\": null}");
  EXPECT_TRUE(ParseJson(json.text()).ok());
}

TEST(Json, BadUtf8StillGivesJson) {
  JsonWriter json;
  json.String("\xff");
  EXPECT_TRUE(ParseJson(json.text()).ok());
}

TEST(Json, MessagesInOurForm) {
  ::videonsa::v1::AskResult result;
  result.set_finish_reason(::videonsa::v1::AskResult::FINISH_REASON_STOP);
  result.mutable_usage()->set_output_tokens(5'000'000'000);
  result.mutable_timing()->mutable_total()->set_seconds(1);
  result.mutable_timing()->mutable_total()->set_nanos(500'000'000);
  result.mutable_timing()->mutable_receive_time()->set_seconds(0);
  result.mutable_effective_generation()->set_seed(18'446'744'073'709'551'615u);
  result.add_visuals()->add_frame_times()->set_nanos(250'000'000);
  JsonWriter json;
  json.Message(result);
  for (const char* part :
       {"\"finish_reason\": \"FINISH_REASON_STOP\"", "\"output_tokens\": 5000000000",
        "\"total_s\": 1.5", "\"receive_time\": \"1970-01-01T00:00:00.000Z\"",
        "\"seed\": 18446744073709551615", "\"frame_times_s\": ["}) {
    EXPECT_THAT(json.text(), HasSubstr(part));
  }
  const auto parsed = ParseJson(json.text());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(NumberAt(*parsed, "usage.output_tokens", 0), 5e9);
  EXPECT_EQ(NumberAt(*parsed, "timing.missing", -1), -1);
  EXPECT_EQ(StringAt(*parsed, "finish_reason", ""), "FINISH_REASON_STOP");
}

TEST(Json, BytesAreHexadecimalAndUnknownEnumsNumbers) {
  ::videonsa::v1::Clip clip;
  clip.set_sha256(std::string("\x00\xff", 2));
  clip.set_state(static_cast<::videonsa::v1::Clip::State>(99));
  JsonWriter json(false);
  json.Message(clip);
  EXPECT_EQ(json.text(), "{\"state\": 99, \"sha256\": \"00ff\"}");
}

TEST(Json, BrokenTextIsRefused) {
  for (const char* text : {"{\"a\":", "[1,", "nonsense!", "{\"a\" 1}"}) {
    EXPECT_FALSE(ParseJson(text).ok()) << text;
  }
}

}  // namespace
}  // namespace videonsa::client
