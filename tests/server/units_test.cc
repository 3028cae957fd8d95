// The parts of the server that need no network: options, errors on the wire, question checks.
#include <google/rpc/error_details.pb.h>
#include <grpc/support/log.h>

#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "runtime/telemetry/log.h"
#include "server/command_line.h"
#include "server/library_logs.h"
#include "server/listen_address.h"
#include "server/proto_time.h"
#include "server/question_parser.h"
#include "server/random_id.h"
#include "server/result_conversion.h"
#include "server/status_conversion.h"
#include "server/worker_pool.h"
#include "tests/server/test_server.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// ---- options

TEST(Options, ReadsBothForms) {
  const auto line = ParseCommandLine({"--listen=0.0.0.0:1", "--threads", "3", "--kv-bytes=2G",
                                      "--reflection=false", "--clip-ttl", "90",
                                      "--device=cuda:3,cuda:1", "--tensor-parallel=2"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.listen, "0.0.0.0:1");
  EXPECT_EQ(line->options.runtime.cpu_threads, 3);
  EXPECT_EQ(line->options.runtime.kv_bytes, int64_t{2} << 30);
  EXPECT_EQ(line->options.reflection, "false");
  EXPECT_EQ(line->options.runtime.device, "cuda:3,cuda:1");
  EXPECT_EQ(line->options.runtime.tensor_parallel, 2);
  EXPECT_EQ(line->options.clips.default_ttl, absl::Seconds(90));
}

TEST(Options, RefusesWhatItDoesNotKnow) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--no-such=1"},
                                             {"model"},
                                             {"--threads"},
                                             {"--threads=-1"},
                                             {"--threads=two"},
                                             {"--kv-bytes=9999999999T"},
                                             {"--compute-type=fp8"},
                                             {"--attention=magic"},
                                             {"--device=tpu"},
                                             {"--device=cuda:"},
                                             {"--device=cuda:-1"},
                                             {"--device=cuda:0,cuda:0"},
                                             {"--tensor-parallel=0"},
                                             {"--clip-ttl=1"},
                                             {"--default-fps=nan"},
                                             {"--log-level=loud"},
                                             {"--reflection=maybe"},
                                             {""},
                                             {"-listen=1"}}) {
    const auto line = ParseCommandLine(arguments);
    EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument) << arguments[0];
  }
}

TEST(Options, HelpNamesEveryOptionWithRangeAndDefault) {
  const std::string help = HelpText();
  for (const char* text :
       {"--model", "--load-format", "--listen", "--metrics-listen", "--admin-listen", "--attention",
        "--compute-type", "--device", "--threads", "--kv-bytes", "--max-context", "--clip-dir",
        "--tenant-uploads", "Default: 127.0.0.1:8090", "Range: 0 to 1024", "Exit codes"}) {
    EXPECT_THAT(help, HasSubstr(text));
  }
  EXPECT_THAT(OptionsMarkdown(), HasSubstr("| `--drain-timeout` | seconds | 0 to 86400 | 60 |  |"));
}

// ---- errors on the wire

TEST(ListenAddress, IsLocalOnlyWhereNoOtherMachineCanReachIt) {
  for (const char* address : {"127.0.0.1:1", "127.9.8.7:1", "localhost:1", "[::1]:1", "unix:/a"}) {
    EXPECT_TRUE(IsLocalAddress(address)) << address;
  }
  for (const char* address : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.evil.example:1", "*:1", "",
                              "localhost.example:1", "127.1:1", "[::ffff:10.0.0.1]:1"}) {
    EXPECT_FALSE(IsLocalAddress(address)) << address;
  }
  EXPECT_EQ(BoundAddress("127.0.0.1:0", 90), "127.0.0.1:90");
  EXPECT_EQ(BoundAddress("[::1]:0", 90), "[::1]:90");
  EXPECT_EQ(BoundAddress("unix:/run/admin", 1), "unix:/run/admin");
}

TEST(StatusConversion, CarriesReasonFieldRetryAndRequest) {
  const absl::Status status = MakeError(absl::StatusCode::kInvalidArgument,
                                        ErrorInfo{.reason = "TOO_MANY_FRAMES",
                                                  .metadata = {{"frames", "900"}, {"limit", "768"}},
                                                  .field = "question.x",
                                                  .retry_after = absl::Milliseconds(1500)},
                                        "question.x: is 900, limit 768");
  const grpc::Status wire = ToGrpcStatus(status, "req-1");
  EXPECT_EQ(wire.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto info = DetailOf<google::rpc::ErrorInfo>(wire);
  EXPECT_EQ(info.reason(), "TOO_MANY_FRAMES");
  EXPECT_EQ(info.domain(), "videonsa.v1");
  EXPECT_EQ(info.metadata().at("limit"), "768");
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(wire).field_violations(0).field(), "question.x");
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(wire).retry_delay().nanos(), 500000000);
  EXPECT_EQ(DetailOf<google::rpc::RequestInfo>(wire).request_id(), "req-1");
}

TEST(StatusConversion, StaysSmallWhateverItIsGiven) {
  ErrorInfo info{.reason = "X", .field = std::string(5000, 'f')};
  for (int i = 0; i < 100; ++i) {
    info.metadata.emplace_back(absl::StrCat("key", i), std::string(5000, 'v'));
  }
  const grpc::Status wire = ToGrpcStatus(
      MakeError(absl::StatusCode::kAborted, info, std::string(1023, 'm') + "\xc3\xa9"), "r");
  EXPECT_LT(wire.error_details().size(), 4097u);
  EXPECT_LE(wire.error_message().size(), 1024u);
  EXPECT_EQ(wire.error_message().back(), 'm') << "a character was cut in two";
  EXPECT_EQ(ReasonOf(wire), "X");
  EXPECT_EQ(DetailOf<google::rpc::RequestInfo>(wire).request_id(), "r");
}

TEST(StatusConversion, LibraryTextStaysInside) {
  const grpc::Status wire =
      ToGrpcStatus(absl::InternalError("std::bad_alloc in /usr/lib at 0x7ffe"), "r");
  EXPECT_EQ(wire.error_message(), "internal error");
  EXPECT_THAT(wire.error_details(), Not(HasSubstr("/usr")));
}

// ---- time and ids

TEST(ProtoTime, KeepsNanoseconds) {
  const absl::Duration d = absl::Seconds(-3) - absl::Nanoseconds(5);
  EXPECT_EQ(FromProto(ToProto(d)), d);
  const absl::Time t = absl::FromUnixNanos(-1);
  EXPECT_EQ(FromProto(ToProto(t)), t);
  EXPECT_GE(ToProto(t).nanos(), 0);
  google::protobuf::Duration bad;
  bad.set_seconds(1);
  bad.set_nanos(-1);
  EXPECT_FALSE(FromProto(bad).has_value());
  bad.set_seconds(std::numeric_limits<int64_t>::min());
  EXPECT_FALSE(FromProto(bad).has_value());
  EXPECT_EQ(ToProto(absl::InfiniteDuration()).seconds(), 315576000000);
}

TEST(RandomId, Is26CharactersAndNeverTheSame) {
  EXPECT_EQ(RandomId().size(), 26u);
  EXPECT_NE(RandomId(), RandomId());
}

TEST(LibraryLogs, AreLinesOfOurLog) {
  gpr_log_verbosity_init();  // what the first server would do
  RouteLibraryLogs();
  const LogLevel before = SetLogLevel(LogLevel::kInfo);
  testing::internal::CaptureStderr();
  gpr_log(GPR_ERROR, "a \"quoted\" word");
  v1::MediaInfo message;
  EXPECT_FALSE(message.ParseFromString("\x0a\x02\xff\xfe"));  // no UTF-8: a caller's fault
  SetLogLevel(LogLevel::kDebug);
  EXPECT_FALSE(message.ParseFromString("\x0a\x02\xff\xfe"));
  const std::vector<std::string> lines =
      absl::StrSplit(testing::internal::GetCapturedStderr(), '\n', absl::SkipEmpty());
  SetLogLevel(before);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[0], StartsWith("{\"ts\":"));
  EXPECT_THAT(lines[0],
              HasSubstr(R"("level":"warning","msg":"gRPC says","text":"a \"quoted\" word")"));
  EXPECT_THAT(lines[1], StartsWith("{\"ts\":"));
  EXPECT_THAT(lines[1], HasSubstr("invalid UTF-8"));
}

TEST(WorkerPool, RefusesWhenFullAndRunsWhatItTook) {
  absl::Notification block;
  std::atomic<int> ran{0};
  {
    WorkerPool pool(1, 2);
    absl::Notification busy;
    ASSERT_TRUE(pool.TrySubmit([&] {
      busy.Notify();
      block.WaitForNotification();
    }));
    busy.WaitForNotification();
    EXPECT_TRUE(pool.TrySubmit([&] { ++ran; }));
    EXPECT_TRUE(pool.TrySubmit([&] { ++ran; }));
    EXPECT_FALSE(pool.TrySubmit([&] { ++ran; }));
    block.Notify();
  }
  EXPECT_EQ(ran, 2);
}

// ---- questions

struct BadQuestion {
  const char* field;
  const char* reason;
  void (*spoil)(v1::Question& question);
};

v1::ClipInput& ClipOf(v1::Question& q) {
  return *q.mutable_turns(0)->mutable_parts(0)->mutable_clip();
}

v1::Question GoodQuestion() {
  v1::Question question;
  v1::Turn& turn = *question.add_turns();
  turn.set_role(v1::Turn::ROLE_USER);
  turn.add_parts()->mutable_clip()->set_inline_data("video bytes");
  turn.add_parts()->set_text("What?");
  return question;
}

class QuestionParserTest : public ::testing::Test {
 protected:
  absl::StatusOr<ParsedQuestion> Parse(const v1::Question& question) {
    return QuestionParser(limits_, fake_.model)
        .Parse(
            question,
            [](const std::string& name) -> absl::StatusOr<ClipLease> {
              if (name != "clips/good") return absl::NotFoundError("no such clip");
              ClipLease lease;
              lease.source.path = "stored";
              return lease;
            },
            [this](const std::string& url) { return guard_.CheckUrl(url).status(); });
  }
  QuestionLimits limits_;
  FakeOptions fake_;
  UrlGuard guard_{UrlRules{}};
};

TEST_F(QuestionParserTest, TakesAGoodQuestion) {
  v1::Question question = GoodQuestion();
  v1::VideoSampling& sampling = *ClipOf(question).mutable_sampling();
  sampling.set_fps(2);
  sampling.set_max_frames(64);
  sampling.mutable_range()->mutable_end_offset()->set_seconds(10);
  question.mutable_turns(0)->add_parts()->mutable_image()->set_clip("clips/good");
  question.mutable_generation()->set_temperature(0);
  question.mutable_attention()->set_max_budget_fraction(0.25);
  question.set_priority(v1::PRIORITY_INTERACTIVE);
  const auto parsed = Parse(question);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const GenerateRequest& request = parsed->request;
  ASSERT_EQ(request.turns.size(), 1u);
  ASSERT_EQ(request.turns[0].parts.size(), 3u);
  const auto& video = std::get<VideoPart>(request.turns[0].parts[0]);
  EXPECT_EQ(*video.source.bytes, "video bytes");
  EXPECT_EQ(video.source.sha256, Sha256Of("video bytes"));
  EXPECT_EQ(video.sampling.fps, 2.0);
  EXPECT_EQ(video.sampling.max_frames, 64);
  EXPECT_EQ(video.sampling.range_end, absl::Seconds(10));
  EXPECT_FALSE(video.sampling.range_begin.has_value());
  EXPECT_EQ(std::get<ImagePart>(request.turns[0].parts[2]).source.path, "stored");
  EXPECT_EQ(request.generation.temperature, 0.0F);
  EXPECT_FALSE(request.generation.top_p.has_value());
  EXPECT_EQ(request.attention.max_budget_fraction, 0.25);
  EXPECT_EQ(request.priority, Priority::kInteractive);
}

TEST_F(QuestionParserTest, RefusesEveryWrongField) {
  const BadQuestion cases[] = {
      {"question.turns", "FIELD_INVALID", [](v1::Question& q) { q.clear_turns(); }},
      {"question.turns", "FIELD_INVALID",
       [](v1::Question& q) {
         for (int i = 0; i < 64; ++i) *q.add_turns() = q.turns(0);
       }},
      {"question.turns[0].role", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_turns(0)->clear_role(); }},
      {"question.turns[0].role", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_turns(0)->set_role(static_cast<v1::Turn::Role>(77)); }},
      {"question.turns[1].role", "FIELD_INVALID",
       [](v1::Question& q) {
         v1::Turn& turn = *q.add_turns();
         turn.set_role(v1::Turn::ROLE_ASSISTANT);
         turn.add_parts()->set_text("I see");
       }},
      {"question.turns[0].parts", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_turns(0)->clear_parts(); }},
      {"question.turns[0].parts[2]", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_turns(0)->add_parts(); }},
      {"question.turns[0].parts[1].text", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_turns(0)->mutable_parts(1)->set_text(""); }},
      {"question.turns[0].parts[1].text", "TEXT_TOO_LONG",
       [](v1::Question& q) {
         q.mutable_turns(0)->mutable_parts(1)->set_text(std::string(10 << 20, 'a'));
       }},
      {"question.system_instruction", "TEXT_TOO_LONG",
       [](v1::Question& q) { q.set_system_instruction(std::string(40 << 10, 'a')); }},
      {"question.turns[0].parts[0]", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_turns(0)->set_role(v1::Turn::ROLE_ASSISTANT); }},
      {"question.turns[0].parts[9]", "FIELD_INVALID",
       [](v1::Question& q) {
         for (int i = 0; i < 9; ++i) *q.mutable_turns(0)->add_parts() = q.turns(0).parts(0);
       }},
      {"question.turns[0].parts[0].clip", "FIELD_INVALID",
       [](v1::Question& q) { ClipOf(q).clear_source(); }},
      {"question.turns[0].parts[0].clip.inline_data", "FIELD_INVALID",
       [](v1::Question& q) { ClipOf(q).set_inline_data(""); }},
      {"question.turns[0].parts[0].clip.inline_data", "MEDIA_TOO_LARGE",
       [](v1::Question& q) { ClipOf(q).set_inline_data(std::string((3 << 20) + 1, 'a')); }},
      {"question.turns[0].parts[0].clip.sampling.fps", "FIELD_INVALID",
       [](v1::Question& q) { ClipOf(q).mutable_sampling()->set_fps(0); }},
      {"question.turns[0].parts[0].clip.sampling.fps", "FIELD_INVALID",
       [](v1::Question& q) { ClipOf(q).mutable_sampling()->set_fps(-1); }},
      {"question.turns[0].parts[0].clip.sampling.fps", "FIELD_INVALID",
       [](v1::Question& q) { ClipOf(q).mutable_sampling()->set_fps(1e9); }},
      {"question.turns[0].parts[0].clip.sampling.fps", "FIELD_INVALID",
       [](v1::Question& q) {
         ClipOf(q).mutable_sampling()->set_fps(std::numeric_limits<double>::quiet_NaN());
       }},
      {"question.turns[0].parts[0].clip.sampling.num_frames", "FIELD_INVALID",
       [](v1::Question& q) { ClipOf(q).mutable_sampling()->set_num_frames(1); }},
      {"question.turns[0].parts[0].clip.sampling.num_frames", "TOO_MANY_FRAMES",
       [](v1::Question& q) { ClipOf(q).mutable_sampling()->set_num_frames(769); }},
      {"question.turns[0].parts[0].clip.sampling.max_frames", "TOO_MANY_FRAMES",
       [](v1::Question& q) { ClipOf(q).mutable_sampling()->set_max_frames(1 << 30); }},
      {"question.turns[0].parts[0].clip.sampling.max_frames", "FIELD_INVALID",
       [](v1::Question& q) { ClipOf(q).mutable_sampling()->set_max_frames(-5); }},
      {"question.turns[0].parts[0].clip.sampling.max_frames", "FIELD_INVALID",
       [](v1::Question& q) {
         ClipOf(q).mutable_sampling()->set_num_frames(4);
         ClipOf(q).mutable_sampling()->set_max_frames(4);
       }},
      {"question.turns[0].parts[0].clip.sampling.max_pixels_per_frame", "FIELD_INVALID",
       [](v1::Question& q) { ClipOf(q).mutable_sampling()->set_max_pixels_per_frame(10); }},
      {"question.turns[0].parts[0].clip.sampling.min_pixels_per_frame", "FIELD_INVALID",
       [](v1::Question& q) {
         ClipOf(q).mutable_sampling()->set_min_pixels_per_frame(90000);
         ClipOf(q).mutable_sampling()->set_max_pixels_per_frame(80000);
       }},
      {"question.turns[0].parts[0].clip.sampling.mode", "FIELD_INVALID",
       [](v1::Question& q) {
         ClipOf(q).mutable_sampling()->set_mode(static_cast<v1::PreprocessMode>(9));
       }},
      {"question.turns[0].parts[0].clip.sampling.range", "FIELD_INVALID",
       [](v1::Question& q) {
         v1::TimeRange& range = *ClipOf(q).mutable_sampling()->mutable_range();
         range.mutable_start_offset()->set_seconds(5);
         range.mutable_end_offset()->set_seconds(5);
       }},
      {"question.turns[0].parts[0].clip.sampling.range.start_offset", "FIELD_INVALID",
       [](v1::Question& q) {
         ClipOf(q).mutable_sampling()->mutable_range()->mutable_start_offset()->set_seconds(-1);
       }},
      {"question.generation.max_output_tokens", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_max_output_tokens(0); }},
      {"question.generation.max_output_tokens", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_max_output_tokens(1 << 30); }},
      {"question.generation.temperature", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_temperature(-0.1F); }},
      {"question.generation.temperature", "FIELD_INVALID",
       [](v1::Question& q) {
         q.mutable_generation()->set_temperature(std::numeric_limits<float>::quiet_NaN());
       }},
      {"question.generation.top_p", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_top_p(0); }},
      {"question.generation.top_p", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_top_p(1.5F); }},
      {"question.generation.top_k", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_top_k(-1); }},
      {"question.generation.min_p", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_min_p(1); }},
      {"question.generation.repetition_penalty", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_repetition_penalty(0); }},
      {"question.generation.repetition_penalty", "FIELD_INVALID",
       [](v1::Question& q) {
         q.mutable_generation()->set_repetition_penalty(std::numeric_limits<float>::infinity());
       }},
      {"question.generation.stop", "FIELD_INVALID",
       [](v1::Question& q) {
         for (int i = 0; i < 9; ++i) q.mutable_generation()->add_stop("x");
       }},
      {"question.generation.stop[0]", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->add_stop(""); }},
      {"question.generation.stop[0]", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->add_stop(std::string(65, 'x')); }},
      {"question.generation.top_logprobs", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_generation()->set_top_logprobs(21); }},
      {"question.attention.mode", "FIELD_INVALID",
       [](v1::Question& q) {
         q.mutable_attention()->set_mode(static_cast<v1::AttentionConfig::Mode>(99));
       }},
      {"question.attention.mode", "FIELD_INVALID",  // the fake model was trained dense
       [](v1::Question& q) {
         q.mutable_attention()->set_mode(v1::AttentionConfig::MODE_NATIVE_SPARSE);
       }},
      {"question.attention.selected_blocks", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_attention()->set_selected_blocks(0); }},
      {"question.attention.window_tokens", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_attention()->set_window_tokens(-1); }},
      {"question.attention.max_budget_fraction", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_attention()->set_max_budget_fraction(0); }},
      {"question.attention.max_budget_fraction", "FIELD_INVALID",
       [](v1::Question& q) { q.mutable_attention()->set_max_budget_fraction(1.01); }},
      {"question.priority", "FIELD_INVALID",
       [](v1::Question& q) { q.set_priority(static_cast<v1::Priority>(12)); }},
  };
  for (const BadQuestion& bad : cases) {
    v1::Question question = GoodQuestion();
    bad.spoil(question);
    const absl::Status status = Parse(question).status();
    const std::optional<ErrorInfo> info = GetErrorInfo(status);
    ASSERT_TRUE(info.has_value()) << bad.field << ": " << status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_EQ(info->field, bad.field) << status;
    EXPECT_EQ(info->reason, bad.reason) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.field));
  }
}

TEST_F(QuestionParserTest, UrlsAreOffWithOneText) {
  v1::Question question = GoodQuestion();
  ClipOf(question).set_url("https://example.org/x.mp4");
  const absl::Status one = Parse(question).status();
  ClipOf(question).set_url("file:///etc/passwd");
  const absl::Status two = Parse(question).status();
  EXPECT_EQ(one.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(one.message(), two.message());
  EXPECT_EQ(GetErrorInfo(one)->reason, "URL_NOT_ALLOWED");
}

TEST_F(QuestionParserTest, UnknownClipIsTheResolversError) {
  v1::Question question = GoodQuestion();
  ClipOf(question).set_clip("clips/none");
  EXPECT_EQ(Parse(question).status().code(), absl::StatusCode::kNotFound);
}

// ---- results

TEST(ResultConversion, EvidenceFollowsTheFramesOfTheBlocks) {
  GenerateResult result;
  VisualReport visual;
  visual.token_begin = 32;
  visual.tokens = 256;  // 4 frames of 64 tokens; blocks are 64 tokens, shifted by 32
  visual.sampled_fps = 2;
  for (int i = 0; i < 4; ++i) visual.frame_times.push_back(absl::Seconds(0.5 * i));
  result.visuals.push_back(visual);
  result.account.layers.resize(1);
  result.account.layers[0] = {10, 20, 30, 40};
  result.account.dense_pairs = 1000;
  result.account.block_share = {0.1, 0.2, 0.6, 0.0, 0.1, 0.0};
  result.attention.semantics = AttentionSemantics::kCausalNsa;
  result.attention.selected_blocks = 2;
  result.attention.window_tokens = 72;
  result.usage.prompt = {45, 256};
  ReportParams report;
  report.evidence = true;
  const v1::AskResult wire = ToProto(result, report, FakeOptions().model);
  const v1::AttentionReport& attention = wire.attention();
  EXPECT_EQ(attention.mode(), v1::AttentionConfig::MODE_NATIVE_SPARSE);
  EXPECT_EQ(attention.semantics(), "causal_nsa");
  EXPECT_DOUBLE_EQ(attention.budget_fraction(), 0.1);
  EXPECT_DOUBLE_EQ(attention.budget_fraction_without_compressed(), 0.09);
  EXPECT_DOUBLE_EQ(attention.paper_budget_fraction(), 2 * 200.0 / 300.0);
  ASSERT_EQ(attention.blocks_size(), 6);
  EXPECT_EQ(attention.blocks(0).clip_index(), 0);
  EXPECT_EQ(attention.blocks(5).clip_index(), -1) << "text after the clip";
  ASSERT_GE(attention.intervals_size(), 2);
  // Block 2 holds tokens 128..191: those of frames 1 and 2.
  EXPECT_DOUBLE_EQ(attention.intervals(0).share(), 0.6);
  EXPECT_EQ(FromProto(attention.intervals(0).range().start_offset()), absl::Seconds(0.5));
  EXPECT_EQ(FromProto(attention.intervals(0).range().end_offset()), absl::Seconds(1.5));
  EXPECT_EQ(attention.layers_size(), 0) << "not asked for";
}

}  // namespace
}  // namespace videonsa
