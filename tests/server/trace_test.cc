// Ids of W3C Trace Context in and out, and the trace file.
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "server/trace/question_trace.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

using Json = nlohmann::json;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kParent[] = "00f067aa0ba902b7";

std::string Header(absl::string_view flags = "01") {
  return absl::StrCat("00-", kTrace, "-", kParent, "-", flags);
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(TraceContext, TakesTheCallersIds) {
  const TraceContext context = MakeTraceContext(Header());
  EXPECT_EQ(context.trace_id, kTrace);
  EXPECT_EQ(context.parent_id, kParent);
  EXPECT_TRUE(context.sampled);
  EXPECT_EQ(context.span_id.size(), 16u);
  EXPECT_NE(context.span_id, kParent);
  EXPECT_EQ(context.Header(), absl::StrCat("00-", kTrace, "-", context.span_id, "-01"));
  EXPECT_FALSE(MakeTraceContext(Header("00")).sampled);
  EXPECT_TRUE(MakeTraceContext(Header("0b")).sampled);
  EXPECT_FALSE(MakeTraceContext(Header("fe")).sampled);
  // A later version may say more.
  EXPECT_EQ(MakeTraceContext("cc" + Header().substr(2) + "-more").trace_id, kTrace);
}

TEST(TraceContext, MalformedOnesBeginANewTrace) {
  std::string upper = Header();
  upper[3] = 'A';
  std::set<std::string> seen;
  for (const std::string& header :
       {std::string(), std::string("00"), Header() + "-more", "ff" + Header().substr(2),
        "0g" + Header().substr(2), Header().substr(0, 54), upper, Header("0x"),
        absl::StrCat("00-", std::string(32, '0'), "-", kParent, "-01"),
        absl::StrCat("00-", kTrace, "-", std::string(16, '0'), "-01"),
        absl::StrCat("00_", kTrace, "_", kParent, "_01"), "cc" + Header().substr(2) + "more",
        std::string(5000, 'a'), std::string(55, '-')}) {
    const TraceContext context = MakeTraceContext(header);
    EXPECT_NE(context.trace_id, kTrace) << header;
    EXPECT_EQ(context.trace_id.size(), 32u);
    EXPECT_EQ(context.parent_id, "");
    EXPECT_TRUE(seen.insert(context.trace_id).second) << "an id was given twice";
  }
}

TEST(QuestionTrace, PhasesLieInsideTheirQuestion) {
  QuestionTrace trace;
  trace.ids = MakeTraceContext(Header());
  trace.request_id = "r";
  trace.received = absl::FromUnixSeconds(1000);
  GenerateResult result;
  Timing& timing = result.timing;
  timing.queue = absl::Milliseconds(1);
  timing.decode = absl::Milliseconds(10);
  timing.preprocess = absl::Milliseconds(5);
  timing.vision = absl::Milliseconds(20);
  timing.prefill = absl::Milliseconds(30);
  timing.time_to_first_token = absl::Milliseconds(70);
  timing.generate = absl::Milliseconds(100);
  const auto spans =
      SpansOf(trace, absl::OkStatus(), result, trace.received + absl::Milliseconds(171));
  std::vector<std::string> names;
  for (const TraceSpan& span : spans) {
    names.push_back(span.name);
    EXPECT_EQ(span.trace_id, kTrace);
    EXPECT_GE(span.start, spans[0].start);
    EXPECT_LE(span.start + span.duration, spans[0].start + spans[0].duration);
    if (&span != &spans[0]) {
      EXPECT_EQ(span.parent_id, spans[0].span_id);
    }
  }
  EXPECT_THAT(names, ::testing::ElementsAre("videonsa.v1.VideoQaService/Ask", "queue", "decode",
                                            "preprocess", "vision", "prefill", "generate"));
  EXPECT_EQ(spans[0].parent_id, kParent);
  EXPECT_EQ(spans[5].start + spans[5].duration, trace.received + timing.time_to_first_token);
  const auto failed = SpansOf(trace, MakeError(absl::StatusCode::kAborted, "WHY", "x"), result,
                              trace.received + absl::Seconds(1));
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].attributes[1].second, "ABORTED");
  EXPECT_EQ(failed[0].attributes[2].second, "WHY");
}

TEST(JsonString, EscapesWhatJsonCannotHold) {
  EXPECT_EQ(JsonString("a\"b\\c\n\x01\xff"), "\"a\\\"b\\\\c\\u000a\\u0001?\"");
}

class TraceFileTest : public ::testing::Test {
 protected:
  std::string path() const { return folder_.path() + "/trace.json"; }

  // Asks once with `traceparent`; returns what came back in its stead.
  static std::string AskTraced(TestServer& server, const std::string& traceparent) {
    grpc::ClientContext context;
    context.AddMetadata("traceparent", traceparent);
    v1::AskRequest request;
    *request.mutable_question() = TextQuestion("Traced?");
    v1::AskResponse response;
    EXPECT_TRUE(server.questions().Ask(&context, request, &response).ok());
    const auto& metadata = context.GetServerInitialMetadata();
    const auto found = metadata.find("traceresponse");
    return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
  }

  TemporaryFolder folder_;
};

TEST_F(TraceFileTest, OtlpLinesHoldTheCallersTrace) {
  ServerOptions options = TestServer::Options();
  options.trace = {path(), "otlp"};
  {
    TestServer server(FakeOptions(), options);
    const std::string reply = AskTraced(server, Header());
    EXPECT_THAT(reply, ::testing::MatchesRegex(absl::StrCat("00-", kTrace, "-[0-9a-f]+-01")));
    EXPECT_NE(AskTraced(server, Header("00")), "") << "is not recorded, but answered";
    EXPECT_FALSE(server.Ask(TextQuestion("fail:ABORTED"), nullptr).ok());
  }
  std::vector<std::string> lines = absl::StrSplit(ReadAll(path()), '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 2u) << "one was not to be sampled";
  const Json first = Json::parse(lines[0])["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(first["traceId"], kTrace);
  EXPECT_EQ(first["parentSpanId"], kParent);
  EXPECT_EQ(first["name"], "videonsa.v1.VideoQaService/Ask");
  EXPECT_GT(std::stoll(first["endTimeUnixNano"].get<std::string>()),
            std::stoll(first["startTimeUnixNano"].get<std::string>()));
  EXPECT_TRUE(absl::StrContains(lines[1], "ABORTED"));
  EXPECT_FALSE(absl::StrContains(lines[0], "Traced?")) << "no content in traces";
}

TEST_F(TraceFileTest, ChromesFormatIsAnArrayThatGoesOnAfterARestart) {
  ServerOptions options = TestServer::Options();
  options.trace.file = path();
  for (int run = 0; run < 2; ++run) {
    TestServer server(FakeOptions(), options);
    AskTraced(server, Header());
  }
  std::string text = ReadAll(path());
  // Viewers take the array without its end; a strict parser wants it.
  text = absl::StrCat(absl::StripSuffix(text, ",\n"), "]");
  const Json events = Json::parse(text);
  ASSERT_EQ(events.size(), 2u);
  for (const Json& event : events) {
    EXPECT_EQ(event["ph"], "X");
    EXPECT_EQ(event["args"]["trace_id"], kTrace);
    EXPECT_GT(event["dur"].get<double>(), 0);
  }
}

TEST_F(TraceFileTest, WhatTheDiskCannotFollowIsDroppedAndCounted) {
  MetricsRegistry metrics;
  auto file = TraceFile::Open(path(), TraceFormat::kOtlp, metrics);
  ASSERT_TRUE(file.ok()) << file.status();
  TraceSpan span;
  span.name = std::string(1 << 20, 'n');
  for (int i = 0; i < 6; ++i) (*file)->Add({span});
  EXPECT_THAT(metrics.Text(),
              ::testing::HasSubstr("videonsa_trace_calls_total{outcome=\"dropped\"} 3"));
  (*file)->Flush();
  (*file)->Add({span});
  EXPECT_THAT(metrics.Text(),
              ::testing::HasSubstr("videonsa_trace_calls_total{outcome=\"written\"} 4"));
}

TEST_F(TraceFileTest, AFileThatCannotBeWrittenStopsTheStart) {
  MetricsRegistry metrics;
  EXPECT_FALSE(TraceFile::Open(folder_.path(), TraceFormat::kOtlp, metrics).ok());
  EXPECT_FALSE(TraceFile::Open(folder_.path() + "/no/file", TraceFormat::kOtlp, metrics).ok());
}

}  // namespace
}  // namespace videonsa
