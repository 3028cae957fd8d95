#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "absl/strings/match.h"
#include "runtime/base/error.h"
#include "tests/runtime/executor/executor_harness.h"

namespace videonsa {
namespace {

using test::ExecutorHarness;
using test::LogitKeeper;
using test::RunInPieces;
using test::Shown;
using test::TinyModel;
using test::Types;
using test::WithType;

TEST(ModelExecutor, ChunkedPrefillEqualsOnePiece) {
  for (ComputeType type : Types()) {
    ExecutorHarness harness({}, WithType(type, 100));
    const SequenceSpec spec = harness.Prompt(1, 40, {3, 12, 16});
    const int length = static_cast<int>(spec.token_ids.size());
    ASSERT_GT(length, 150);
    const Shown whole = RunInPieces(harness, spec, {});
    for (const std::vector<int>& borders :
         {std::vector<int>{1}, {63, 64, 65}, {17, 90, 91, 128}, {length - 1}}) {
      const Shown pieces = RunInPieces(harness, spec, borders);
      EXPECT_EQ(pieces.ids, whole.ids);
      EXPECT_EQ(pieces.hidden, whole.hidden);
      EXPECT_EQ(pieces.logits, whole.logits);
    }
  }
}

TEST(ModelExecutor, BatchedDecodeEqualsAlone) {
  for (ComputeType type : Types()) {
    ExecutorHarness harness({}, WithType(type, 7));  // 9 sequences make two batches
    std::vector<SequenceSpec> specs;
    std::vector<std::vector<int32_t>> alone;
    for (uint64_t id = 1; id <= 9; ++id) {
      specs.push_back(harness.Prompt(id, 5 + 13 * static_cast<int>(id),
                                     id % 2 ? PatchGrid{1, 4, 4} : PatchGrid{}, 12));
      specs.back().sampling.repetition_penalty = 1.1f;
      specs.back().sampling.temperature = id % 3 ? 0.8f : 0.0f;
      specs.back().sampling.seed = id;
      alone.push_back(harness.Answer(specs.back()));
    }
    std::map<SequenceId, std::vector<int32_t>> together;
    StepPlan plan;
    for (const SequenceSpec& spec : specs) {
      ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
      for (const VisionSlice& slice : ExecutorHarness::VisionOf(spec)) plan.vision.push_back(slice);
      plan.prefill.push_back(harness.WholePrefill(spec));
    }
    for (int step = 0; step < 12; ++step) {
      for (const SampledToken& token : harness.MustRun(plan).tokens) {
        together[token.sequence].push_back(token.token_id);
      }
      plan = {};
      for (const SequenceSpec& spec : specs) plan.decode.push_back(spec.id);
    }
    for (size_t i = 0; i < specs.size(); ++i) EXPECT_EQ(together[specs[i].id], alone[i]) << i;
  }
}

TEST(ModelExecutor, VisionInPiecesEqualsOnePiece) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  const SequenceSpec spec = harness.Prompt(1, 6, {5, 6, 10});
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  harness.MustRun({0, {{spec.id, 0, 0, 5}}, {}, {}});
  const VisualFeatures* features = harness.executor().Features(spec.id, 0);
  ASSERT_NE(features, nullptr);
  const std::vector<float> whole(features->rows.f32(),
                                 features->rows.f32() + features->rows.num_elements());
  harness.executor().ReleaseSequence(spec.id);
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  harness.MustRun({0, {{spec.id, 0, 0, 2}}, {}, {}});
  harness.MustRun({0, {{spec.id, 0, 2, 3}}, {}, {}});
  harness.MustRun({0, {{spec.id, 0, 3, 5}}, {}, {}});
  features = harness.executor().Features(spec.id, 0);
  EXPECT_EQ(whole, std::vector<float>(features->rows.f32(),
                                      features->rows.f32() + features->rows.num_elements()));
}

TEST(ModelExecutor, EqualKeysReuseFeatures) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  SequenceSpec first = harness.Prompt(1, 6, {2, 6, 10});
  SequenceSpec second = first;
  second.id = SequenceId{2};
  first.visual_keys = second.visual_keys = {Sha256Of("clip")};
  const std::vector<int32_t> expected = harness.Answer(first);
  ASSERT_TRUE(harness.executor().AddSequence(second).ok());
  const StepResult vision = harness.MustRun({0, ExecutorHarness::VisionOf(second), {}, {}});
  ASSERT_EQ(vision.reused_vision.size(), 1u);
  const StepResult prefill = harness.MustRun({0, {}, {harness.WholePrefill(second)}, {}});
  EXPECT_EQ(prefill.tokens.at(0).token_id, expected[0]);
  // Unknown content is never reused.
  SequenceSpec third = harness.Prompt(3, 6, {2, 6, 10});
  third.visual_keys = {Sha256Digest{}};
  harness.Answer(third);
  ASSERT_TRUE(harness.executor().AddSequence(third).ok());
  EXPECT_TRUE(harness.MustRun({0, ExecutorHarness::VisionOf(third), {}, {}}).reused_vision.empty());
}

TEST(ModelExecutor, CachedTokensContinueExactly) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  const SequenceSpec spec = harness.Prompt(1, 200, {});
  const std::vector<int32_t> expected = harness.Answer(spec);
  SequenceSpec again = spec;  // same pages, which still hold the prompt
  again.id = SequenceId{2};
  again.cached_tokens = 128;
  ASSERT_TRUE(harness.executor().AddSequence(again).ok());
  const StepResult result = harness.MustRun({0, {}, {harness.Prefill(again, 128, 200)}, {}});
  EXPECT_EQ(result.tokens.at(0).token_id, expected[0]);
  // 72 of the 200 rows were computed now.
  const AttentionAccount account = harness.executor().Account(again.id);
  const int64_t pairs = 200 * 201 / 2 - 128 * 129 / 2;
  EXPECT_EQ(account.layers.at(0).dense, pairs);
  EXPECT_EQ(account.dense_pairs, 2 * pairs);
}

TEST(ModelExecutor, DenseAccountCountsPrefillAndDecode) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  const SequenceSpec spec = harness.Prompt(1, 70, {});
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  harness.MustRun({0, {}, {harness.WholePrefill(spec)}, {}});
  harness.MustRun({0, {}, {}, {spec.id}});
  harness.MustRun({0, {}, {}, {spec.id}});
  const AttentionAccount account = harness.executor().Account(spec.id);
  const int64_t pairs = 70 * 71 / 2 + 71 + 72;
  ASSERT_EQ(account.layers.size(), 2u);
  for (const BranchPairs& layer : account.layers) EXPECT_EQ(layer, (BranchPairs{0, 0, 0, pairs}));
  EXPECT_EQ(account.dense_pairs, 2 * pairs);
}

TEST(ModelExecutor, CancelledSequencesAreSkipped) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 70, {1, 4, 4});
  auto cancelled = std::make_shared<std::atomic<bool>>(true);
  spec.cancelled = cancelled;
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  StepResult result = harness.MustRun({0, ExecutorHarness::VisionOf(spec), {}, {}});
  EXPECT_EQ(result.skipped, (std::vector<SequenceId>{spec.id}));
  result = harness.MustRun({0, {}, {harness.WholePrefill(spec)}, {}});
  EXPECT_EQ(result.skipped, (std::vector<SequenceId>{spec.id}));
  EXPECT_TRUE(result.tokens.empty());
  cancelled->store(false);
  harness.MustRun({0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(spec)}, {}});
  cancelled->store(true);
  result = harness.MustRun({0, {}, {}, {spec.id}});
  EXPECT_EQ(result.skipped, (std::vector<SequenceId>{spec.id}));
  harness.executor().ReleaseSequence(spec.id);
}

TEST(ModelExecutor, LogprobsAreThoseOfTheModel) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 30, {});
  spec.sampling.num_logprobs = 5;
  spec.sampling.repetition_penalty = 1.3f;
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  LogitKeeper keeper(1);
  harness.executor().Observe(spec.id, &keeper);
  const StepResult result = harness.MustRun({0, {}, {harness.WholePrefill(spec)}, {}});
  const SampledToken& token = result.tokens.at(0);
  const std::vector<float>& logits = keeper.logits().at(0);
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit));
  EXPECT_NEAR(token.logprob.logprob, logits[static_cast<size_t>(token.token_id)] - std::log(sum),
              1e-5);
  ASSERT_EQ(token.logprob.alternatives.size(), 5u);
  for (const TokenLogprob& alternative : token.logprob.alternatives) {
    EXPECT_NEAR(alternative.logprob,
                logits[static_cast<size_t>(alternative.token_id)] - std::log(sum), 1e-5);
  }
  EXPECT_EQ(token.logprob.alternatives[0].token_id,
            std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(ModelExecutor, SuppressedStopTokensNeverCome) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 30, {}, 40);
  spec.sampling.temperature = 50;  // nearly uniform over 160 ids
  spec.sampling.suppress_eos = true;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    spec.sampling.seed = seed;
    const std::vector<int32_t> ids = harness.Answer(spec);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), test::kStop), 0);
    EXPECT_GT(std::set<int32_t>(ids.begin(), ids.end()).size(), 10u);
  }
}

struct BadSpec {
  const char* name;
  std::function<void(SequenceSpec&)> change;
  const char* reason;
};

TEST(ModelExecutor, RefusesWhatItCannotRun) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  const BadSpec cases[] = {
      {"empty", [](SequenceSpec& s) { s.token_ids.clear(); }, "SEQUENCE_INVALID"},
      {"token", [](SequenceSpec& s) { s.token_ids[3] = 160; }, "SEQUENCE_INVALID"},
      {"negative token", [](SequenceSpec& s) { s.token_ids[3] = -1; }, "SEQUENCE_INVALID"},
      {"positions", [](SequenceSpec& s) { s.positions.pop_back(); }, "SEQUENCE_INVALID"},
      {"pages", [](SequenceSpec& s) { s.page_ids.clear(); }, "SEQUENCE_INVALID"},
      {"page id", [](SequenceSpec& s) { s.page_ids[0] = 256; }, "SEQUENCE_INVALID"},
      {"cached", [](SequenceSpec& s) { s.cached_tokens = 1000; }, "SEQUENCE_INVALID"},
      {"too long", [](SequenceSpec& s) { s.sampling.max_output_tokens = 1 << 20; },
       "PROMPT_TOO_LONG"},
      {"span", [](SequenceSpec& s) { s.vision_spans[0].num_tokens = 5; }, "SEQUENCE_INVALID"},
      {"span place", [](SequenceSpec& s) { s.vision_spans[0].token_begin = 400; },
       "SEQUENCE_INVALID"},
      {"visual", [](SequenceSpec& s) { s.vision_spans[0].visual_idx = 1; }, "SEQUENCE_INVALID"},
      {"null visual", [](SequenceSpec& s) { s.visuals[0] = nullptr; }, "SEQUENCE_INVALID"},
      {"odd grid",
       [](SequenceSpec& s) {
         auto odd = std::make_shared<PatchBatch>();
         odd->grid = s.visuals[0]->grid();
         odd->grid.h = 5;
         odd->rows.resize(static_cast<size_t>(odd->grid.num_patches()) * kPatchDim);
         s.visuals[0] = WholePatches(odd);
       },
       "SEQUENCE_INVALID"},
      {"short rows",
       [](SequenceSpec& s) {
         auto cut = std::make_shared<PatchBatch>();
         cut->grid = s.visuals[0]->grid();
         cut->rows.resize(static_cast<size_t>(cut->grid.num_patches()) * kPatchDim - 1);
         s.visuals[0] = WholePatches(cut);
       },
       "SEQUENCE_INVALID"},
      {"keys", [](SequenceSpec& s) { s.visual_keys.resize(2); }, "SEQUENCE_INVALID"},
      {"temperature", [](SequenceSpec& s) { s.sampling.temperature = NAN; }, "SEQUENCE_INVALID"},
      {"penalty", [](SequenceSpec& s) { s.sampling.repetition_penalty = 0; }, "SEQUENCE_INVALID"},
      {"semantics", [](SequenceSpec& s) { s.attention.semantics = AttentionSemantics::kCausalNsa; },
       "ATTENTION_UNSUPPORTED"},
  };
  for (const BadSpec& bad : cases) {
    SequenceSpec spec = harness.Prompt(1, 40, {1, 4, 4});
    for (int32_t& page : spec.page_ids) page = 1;
    bad.change(spec);
    const absl::Status status = harness.executor().AddSequence(spec);
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.name << ": " << status;
    EXPECT_EQ(GetErrorInfo(status)->reason, bad.reason) << bad.name;
  }
}

TEST(ModelExecutor, RefusesOptionsOutOfRange) {
  const std::function<void(ExecutorOptions&)> changes[] = {
      [](ExecutorOptions& o) { o.threads = -1; },
      [](ExecutorOptions& o) { o.max_rows = 0; },
      [](ExecutorOptions& o) { o.num_pages = -1; },
      [](ExecutorOptions& o) { o.kv_bytes = 0; },
      [](ExecutorOptions& o) { o.kv_bytes = 100; },
      [](ExecutorOptions& o) { o.max_context_tokens = -5; },
      [](ExecutorOptions& o) { o.attention = AttentionSemantics::kReleasedNsa; },
  };
  const test::TemporaryFolder folder;
  WriteModelFolder(TinyModel{}, folder);
  for (const auto& change : changes) {
    ExecutorOptions options;
    options.model_dir = folder.path();
    options.threads = 1;
    change(options);
    const auto executor = CreateExecutor(options);
    EXPECT_EQ(executor.status().code(), absl::StatusCode::kInvalidArgument) << executor.status();
  }
}

TEST(ModelExecutor, FactoryDescribesTheModel) {
  const test::TemporaryFolder folder;
  WriteModelFolder(TinyModel{}, folder);
  ExecutorOptions options;
  options.model_dir = folder.path() + "/";
  options.threads = 1;
  options.compute_type = ComputeType::kF32;
  options.max_context_tokens = 777;
  ModelDescription description;
  const auto executor = CreateExecutor(options, &description);
  ASSERT_TRUE(executor.ok()) << executor.status();
  EXPECT_EQ(folder.path().substr(folder.path().rfind('/') + 1), description.name);
  EXPECT_EQ(description.stop_token_ids, (std::vector<int32_t>{test::kStop}));
  EXPECT_EQ(description.compute_type, "f32");
  EXPECT_EQ(description.repetition_penalty, 1.05f);
  EXPECT_FALSE(description.random_weights);
  EXPECT_NE(description.digest, Sha256Digest{});
  EXPECT_EQ((*executor)->info().max_context_tokens, 777);
  EXPECT_EQ((*executor)->info().vocab_size, 160);
}

TEST(ModelExecutor, LoadsTheBundledModel) {
  ExecutorOptions options;
  options.model_dir = VIDEONSA_SOURCE_DIR "/deploy/demo_model/weights";
  options.threads = 1;
  ModelDescription description;
  const auto executor = CreateExecutor(options, &description);
  ASSERT_TRUE(executor.ok()) << executor.status();
  EXPECT_EQ((*executor)->info().semantics, AttentionSemantics::kCausalNsa);
  EXPECT_TRUE((*executor)->info().has_gates);
  EXPECT_FALSE(description.random_weights);
}

TEST(ModelExecutor, HeadSizesOfEveryModelRun) {
  for (int head_dim : {16, 64, 80, 128}) {
    for (ComputeType type : Types()) {
      TinyModel model;
      model.head_dim = head_dim;
      model.vision_hidden = 2 * head_dim;
      ExecutorHarness harness(model, WithType(type));
      const SequenceSpec spec = harness.Prompt(1, 30, {1, 6, 6}, 4);
      EXPECT_EQ(harness.Answer(spec), harness.Answer(spec)) << head_dim;
    }
  }
}

}  // namespace
}  // namespace videonsa
