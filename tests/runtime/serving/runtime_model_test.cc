// The runtime over the real CPU executor and a model of two layers with random weights.
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "runtime/serving/runtime.h"
#include "runtime/telemetry/metrics.h"
#include "tests/runtime/serving/model_runtime.h"
#include "tests/runtime/serving/serving_fixtures.h"
#include "tests/support/recording_sink.h"

namespace videonsa {
namespace {

RuntimeOptions Options(const test::TemporaryFolder& folder) {
  RuntimeOptions options;
  options.model_dir = folder.path();
  options.compute_type = "fp32";
  options.cpu_threads = 2;
  options.kv_bytes = 16 << 20;
  options.decoder_binary = std::string(VIDEONSA_BIN_DIR) + "/videonsa-decoder";
  options.decoder_processes = 1;
  options.prefill_chunk_tokens = 128;
  return options;
}

TEST(CreateRuntime, AnswersAQuestionWithRealParts) {
  test::TemporaryFolder folder;
  WriteFolder("dense", folder);
  MetricsRegistry metrics;
  auto runtime = CreateRuntime(Options(folder), Clock::Real(), metrics);
  ASSERT_TRUE(runtime.ok()) << runtime.status();
  GenerateRequest request = Question("What is it?");
  request.generation.max_output_tokens = 12;
  request.generation.ignore_eos = true;
  request.generation.want_logprobs = true;
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE((*runtime)->Submit(std::move(request), sink).ok());
  sink->Await();
  ASSERT_TRUE(sink->status().ok()) << sink->status();
  EXPECT_EQ(sink->token_count(), 12);
  EXPECT_EQ(sink->logprobs().size(), 12u);
  const GenerateResult result = sink->result();
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.usage.output_tokens, 12);
  EXPECT_EQ(result.account.total().dense, result.account.dense_pairs);
  EXPECT_EQ((*runtime)->Drain(absl::Seconds(10)), 0);
}

// Text of the answers to some questions, one of them asked by several at once.
std::vector<std::string> Answers(Runtime& runtime) {
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const char* question : {"What is it?", "Who is there and why?", "What is it?"}) {
    GenerateRequest request = Question(question);
    request.generation.max_output_tokens = 16;
    request.generation.ignore_eos = true;
    sinks.push_back(std::make_shared<RecordingSink>());
    EXPECT_TRUE(runtime.Submit(std::move(request), sinks.back()).ok());
  }
  std::vector<std::string> texts;
  for (const auto& sink : sinks) {
    sink->Await();
    EXPECT_TRUE(sink->status().ok()) << sink->status();
    texts.push_back(sink->text());
  }
  return texts;
}

TEST(CreateRuntime, AnswersAlikeWithSeveralRanksAndSeveralWorkersOfRanks) {
  for (const char* semantics : {"dense", "causal_nsa", "released_nsa"}) {
    test::TemporaryFolder folder;
    WriteFolder(semantics, folder);
    std::vector<std::string> alone;
    for (const auto& [ranks, workers] : {std::pair{1, 1}, {2, 1}, {2, 2}}) {
      MetricsRegistry metrics;
      RuntimeOptions options = Options(folder);
      options.device = "cpu";
      options.tensor_parallel = ranks;
      options.cpu_workers = workers;
      auto runtime = CreateRuntime(options, Clock::Real(), metrics);
      ASSERT_TRUE(runtime.ok()) << runtime.status();
      EXPECT_EQ((*runtime)->Stats().workers, workers);
      const std::vector<std::string> texts = Answers(**runtime);
      if (alone.empty()) alone = texts;
      EXPECT_EQ(texts, alone) << semantics << ", " << ranks << " ranks, " << workers << " workers";
      EXPECT_EQ((*runtime)->Drain(absl::Seconds(10)), 0);
    }
  }
}

TEST(CreateRuntime, RefusesRanksAndDevicesThatDoNotFit) {
  test::TemporaryFolder folder;
  WriteFolder("dense", folder);  // two KV heads
  MetricsRegistry metrics;
  const auto create = [&](const char* device, int ranks) {
    RuntimeOptions options = Options(folder);
    options.device = device;
    options.tensor_parallel = ranks;
    return CreateRuntime(options, Clock::Real(), metrics).status();
  };
  for (const auto& [device, ranks] :
       {std::pair{"cpu", 4}, {"cpu", 0}, {"cpu", 9}, {"cuda:1,cuda:1", 1}, {"tpu", 1}}) {
    const absl::Status status = create(device, ranks);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << device << ", " << ranks;
    EXPECT_EQ(ReasonOf(status), "FIELD_INVALID") << status;
  }
  EXPECT_EQ(create("cuda:4095,cuda:4096", 2).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(CreateRuntime, RefusesAFolderThatIsNoModel) {
  test::TemporaryFolder folder;
  MetricsRegistry metrics;
  const auto runtime = CreateRuntime(Options(folder), Clock::Real(), metrics);
  EXPECT_EQ(runtime.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(runtime.status()), "MODEL_INVALID");
}

constexpr AttentionSemantics kPatterns[] = {
    AttentionSemantics::kTriShape, AttentionSemantics::kMInference,
    AttentionSemantics::kFlexPrefill, AttentionSemantics::kXAttention};

TEST(StreamedClips, AnswerAsWholeOnesAndDecodeOnceForEqualFeatures) {
  for (const char* semantics : {"dense", "released_nsa"}) {
    test::TemporaryFolder folder;
    WriteFolder(semantics, folder);
    GenerateRequest request = Question("What is it?", "clip", 50);
    request.generation.max_output_tokens = 16;
    request.generation.ignore_eos = true;
    // Another instruction before the clip: features are shared, pages are not.
    const std::string instructions[] = {"", "Be brief."};
    std::string whole[2];
    for (int i = 0; i < 2; ++i) {
      std::unique_ptr<RuntimeImpl> runtime = FakeMediaRuntime(folder, 1);
      auto sink = std::make_shared<RecordingSink>();
      request.system_instruction = instructions[i];
      ASSERT_TRUE(runtime->Submit(request, sink).ok());
      sink->Await();
      ASSERT_TRUE(sink->status().ok()) << sink->status();
      whole[i] = sink->text();
    }
    FakeMediaLoader* media = nullptr;
    std::unique_ptr<RuntimeImpl> runtime =
        FakeMediaRuntime(folder, 2, /*patch_buffer_bytes=*/3 * 16 * kPatchDim * 4, &media);
    struct Round {
      const char* tenant;
      int instruction;
      bool reused;
    };
    for (const Round& round :
         {Round{"a", 0, false}, Round{"a", 1, true}, Round{"b", 1, false}, Round{"b", 0, true}}) {
      const int loads = media->num_loads();
      auto sink = std::make_shared<RecordingSink>();
      request.tenant = round.tenant;
      request.system_instruction = instructions[round.instruction];
      ASSERT_TRUE(runtime->Submit(request, sink).ok());
      sink->Await();
      ASSERT_TRUE(sink->status().ok()) << sink->status();
      const GenerateResult result = sink->result();
      EXPECT_EQ(sink->text(), whole[round.instruction]) << semantics;
      EXPECT_EQ(result.usage.cached_prompt_tokens, 0);
      EXPECT_EQ(result.kv_reuse, round.reused ? KvReuse::kFeatures : KvReuse::kNone)
          << "tenants " << round.tenant;
      EXPECT_EQ(result.usage.frames_decoded, round.reused ? 0 : 50);
      EXPECT_EQ(media->num_loads() - loads, round.reused ? 0 : 1);
    }
  }
}

GenerateRequest Mixed(int i) {
  GenerateRequest request =
      Question(absl::StrCat("question ", i % 7, std::string(20 * (i % 5), 'x')),
               i % 3 == 0 ? "" : absl::StrCat("clip ", i % 4), 4 + 2 * (i % 5));
  request.generation.max_output_tokens = 5 + i % 20;
  request.generation.temperature = i % 2 == 0 ? 0.0f : 0.8f;
  request.generation.seed = static_cast<uint64_t>(i);
  request.priority = static_cast<Priority>(i % 3);
  return request;
}

// A question for each semantics; the training-free ones are a request's choice.
GenerateRequest MixedFor(const std::string& semantics, int i) {
  GenerateRequest request = Mixed(i);
  for (const AttentionSemantics pattern : kPatterns) {
    if (semantics == SemanticsName(pattern)) request.attention.semantics = pattern;
  }
  return request;
}

std::string TrainedAs(const std::string& semantics) {
  return semantics == "causal_nsa" || semantics == "released_nsa" ? semantics : "dense";
}

class ConcurrencyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ConcurrencyTest, ThirtyTwoAtOnceAnswerAsAlone) {
  test::TemporaryFolder folder;
  WriteFolder(TrainedAs(GetParam()), folder);
  std::vector<std::string> alone(32);
  std::vector<FinishReason> reasons(32);
  {
    std::unique_ptr<RuntimeImpl> runtime = FakeMediaRuntime(folder, 1);
    for (int i = 0; i < 32; ++i) {
      auto sink = std::make_shared<RecordingSink>();
      ASSERT_TRUE(runtime->Submit(MixedFor(GetParam(), i), sink).ok());
      sink->Await();
      ASSERT_TRUE(sink->status().ok()) << sink->status();
      alone[i] = sink->text();
      reasons[i] = sink->result().finish_reason;
    }
  }
  for (const int depth : {1, 2}) {
    std::unique_ptr<RuntimeImpl> runtime = FakeMediaRuntime(folder, depth);
    std::vector<std::thread> callers;
    for (int i = 0; i < 32; ++i) {
      callers.emplace_back([&, i] {
        GenerateRequest request = MixedFor(GetParam(), i);
        const bool slow_deadline = i % 8 == 5;
        if (slow_deadline) {
          request.deadline = Clock::Real().Monotonic() + absl::Milliseconds(5 + i);
        }
        auto sink = std::make_shared<RecordingSink>(i % 8 == 7 ? 2 : 0);
        const absl::StatusOr<RequestId> id = runtime->Submit(std::move(request), sink);
        ASSERT_TRUE(id.ok()) << id.status();
        if (i % 8 == 3) runtime->Cancel(*id);
        sink->Await();
        if (i % 8 == 3 || i % 8 == 7 || slow_deadline) {
          EXPECT_EQ(alone[i].compare(0, sink->text().size(), sink->text()), 0);
          return;
        }
        EXPECT_TRUE(sink->status().ok()) << sink->status();
        EXPECT_EQ(sink->text(), alone[i]) << "request " << i;
        EXPECT_EQ(sink->result().finish_reason, reasons[i]);
      });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(runtime->Drain(absl::Seconds(30)), 0);
    EXPECT_EQ(runtime->Stats().running, 0);
    EXPECT_EQ(runtime->Stats().waiting, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Semantics, ConcurrencyTest,
                         ::testing::Values("dense", "causal_nsa", "released_nsa", "minference",
                                           "xattention"));

TEST(TrainingFree, ARequestChoosesThePatternAndTheAccountSaysWhatItSpent) {
  test::TemporaryFolder folder;
  WriteFolder("dense", folder);
  std::unique_ptr<RuntimeImpl> runtime = FakeMediaRuntime(folder, 2);
  GenerateRequest request = Question("What is it?", "clip", 1200);
  request.generation.max_output_tokens = 4;
  request.generation.ignore_eos = true;
  request.report.evidence = true;
  const EstimateResult dense = *runtime->Estimate(request);
  for (const AttentionSemantics semantics : kPatterns) {
    request.attention.semantics = semantics;
    const EstimateResult estimate = *runtime->Estimate(request);
    auto sink = std::make_shared<RecordingSink>();
    ASSERT_TRUE(runtime->Submit(request, sink).ok());
    sink->Await();
    ASSERT_TRUE(sink->status().ok()) << sink->status();
    const GenerateResult result = sink->result();
    EXPECT_EQ(result.attention.semantics, semantics);
    EXPECT_NE(result.kv_reuse, KvReuse::kExact);
    const BranchPairs total = result.account.total();
    EXPECT_GT(total.selected, 0);
    EXPECT_EQ(total.compressed + total.window, 0);
    EXPECT_GT(total.dense, 0) << "decode rows";
    EXPECT_LE(total.total(), result.account.dense_pairs);
    if (semantics == AttentionSemantics::kFlexPrefill ||
        semantics == AttentionSemantics::kXAttention) {
      EXPECT_LT(total.total(), result.account.dense_pairs) << SemanticsName(semantics);
    }
    EXPECT_FALSE(result.account.block_share.empty());
    EXPECT_TRUE(estimate.admissible) << estimate.why;
    EXPECT_GT(estimate.kv_bytes, dense.kv_bytes) << "rows kept between layers";
  }
}

}  // namespace
}  // namespace videonsa
