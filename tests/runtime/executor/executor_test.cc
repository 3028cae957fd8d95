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
using test::TinyModel;

std::vector<ComputeType> Types() {
  std::vector<ComputeType> types = {ComputeType::kF32};
  if (CpuBackend::AutoComputeType() == DType::kBF16) types.push_back(ComputeType::kBF16);
  return types;
}

CpuExecutorOptions WithType(ComputeType type, int max_rows = 512) {
  CpuExecutorOptions options;
  options.compute_type = type;
  options.max_rows = max_rows;
  return options;
}

// Everything a run shows, for bitwise comparison.
struct Shown {
  std::vector<float> hidden;
  std::vector<std::vector<float>> logits;
  std::vector<int32_t> ids;
};

Shown RunInPieces(ExecutorHarness& harness, const SequenceSpec& spec,
                  const std::vector<int>& borders) {
  CpuExecutor& executor = harness.executor();
  LogitKeeper keeper(executor.info().num_layers - 1);
  EXPECT_TRUE(executor.AddSequence(spec).ok());
  executor.Observe(spec.id, &keeper);
  harness.MustRun({0, ExecutorHarness::VisionOf(spec), {}, {}});
  Shown shown;
  const auto take = [&](const StepResult& result) {
    for (const SampledToken& token : result.tokens) shown.ids.push_back(token.token_id);
  };
  int begin = 0;
  for (int end : borders) {
    take(harness.MustRun({0, {}, {harness.Prefill(spec, begin, end)}, {}}));
    begin = end;
  }
  take(harness.MustRun(
      {0, {}, {harness.Prefill(spec, begin, static_cast<int>(spec.token_ids.size()))}, {}}));
  while (static_cast<int>(shown.ids.size()) < spec.sampling.max_output_tokens) {
    take(harness.MustRun({0, {}, {}, {spec.id}}));
  }
  executor.ReleaseSequence(spec.id);
  shown.hidden = keeper.hidden();
  shown.logits = keeper.logits();
  return shown;
}

TEST(CpuExecutor, ChunkedPrefillEqualsOnePiece) {
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

TEST(CpuExecutor, BatchedDecodeEqualsAlone) {
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

TEST(CpuExecutor, VisionInPiecesEqualsOnePiece) {
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

TEST(CpuExecutor, EqualKeysReuseFeatures) {
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

TEST(CpuExecutor, CachedTokensContinueExactly) {
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

TEST(CpuExecutor, DenseAccountCountsPrefillAndDecode) {
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

TEST(CpuExecutor, CancelledSequencesAreSkipped) {
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

TEST(CpuExecutor, LogprobsAreThoseOfTheModel) {
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

TEST(CpuExecutor, SuppressedStopTokensNeverCome) {
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

TinyModel NsaModel() {
  TinyModel model;
  model.semantics = "causal_nsa";
  model.selected_blocks = 2;
  model.window_tokens = 40;
  return model;
}

TEST(CpuExecutor, ChunkedCausalNsaEqualsOnePiece) {
  for (ComputeType type : Types()) {
    ExecutorHarness harness(NsaModel(), WithType(type, 150));
    const SequenceSpec spec = harness.Prompt(1, 30, {4, 14, 18});
    const int length = static_cast<int>(spec.token_ids.size());
    ASSERT_GT(length, 250);
    const Shown whole = RunInPieces(harness, spec, {});
    for (const std::vector<int>& borders :
         {std::vector<int>{16}, {63, 64, 65, 130}, {17, 90, 91, 128, 192}, {length - 1}}) {
      const Shown pieces = RunInPieces(harness, spec, borders);
      EXPECT_EQ(pieces.ids, whole.ids);
      EXPECT_EQ(pieces.hidden, whole.hidden);
      EXPECT_EQ(pieces.logits, whole.logits);
    }
  }
}

TEST(CpuExecutor, CausalNsaAccountCountsItsPairs) {
  ExecutorHarness harness(NsaModel(), WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 30, {4, 14, 18});
  spec.attention.want_gates = true;
  spec.attention.want_evidence = true;
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  harness.MustRun({0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(spec)}, {}});
  harness.MustRun({0, {}, {}, {spec.id}});
  BranchPairs expected;
  int64_t dense_pairs = 0;
  const int64_t length = static_cast<int64_t>(spec.token_ids.size());
  for (int64_t row = 0; row < length; ++row) {
    dense_pairs += row + 1;
    if (spec.token_ids[static_cast<size_t>(row)] != test::kVideoPad) {
      expected.dense += row + 1;
      continue;
    }
    const int64_t own = row / 64;
    expected.compressed += (row + 1) / 64;
    expected.selected += row % 64 + 1 + 64 * std::min<int64_t>(own, 2 - 1);
    expected.window += std::min<int64_t>(40, row + 1);
  }
  expected.dense += length + 1;  // the decode row
  dense_pairs += length + 1;
  const AttentionAccount account = harness.executor().Account(spec.id);
  ASSERT_EQ(account.layers.size(), 2u);
  for (const BranchPairs& layer : account.layers) EXPECT_EQ(layer, expected);
  EXPECT_EQ(account.dense_pairs, 2 * dense_pairs);
  ASSERT_EQ(account.gates.size(), 2u);
  for (const BranchGates& gates : account.gates) {
    for (double gate : {gates.compressed, gates.selected, gates.window}) {
      EXPECT_GT(gate, 0.01);
      EXPECT_LT(gate, 0.99);
    }
  }
  double share = 0;
  for (double block : account.block_share) share += block;
  EXPECT_NEAR(share, 1, 1e-9);
}

TinyModel ReleasedModel() {
  TinyModel model;
  model.semantics = "released_nsa";
  model.q_heads = 28;
  model.kv_heads = 4;
  model.layers = 3;
  model.selected_blocks = 2;
  model.window_tokens = 40;
  return model;
}

TEST(CpuExecutor, LayerSlicesEqualOnePiece) {
  for (ComputeType type : Types()) {
    ExecutorHarness harness(ReleasedModel(), WithType(type, 100));
    const SequenceSpec spec = harness.Prompt(1, 30, {4, 14, 18});
    const int length = static_cast<int>(spec.token_ids.size());
    const std::vector<int32_t> whole = harness.Answer(spec);
    // A second sequence decodes between the layers of the first.
    SequenceSpec other = harness.Prompt(2, 20, {});
    const std::vector<int32_t> alone = harness.Answer(other);
    ASSERT_TRUE(harness.executor().AddSequence(other).ok());
    ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
    std::vector<int32_t> ids, other_ids;
    const auto take = [&](const StepResult& result) {
      for (const SampledToken& token : result.tokens) {
        (token.sequence == spec.id ? ids : other_ids).push_back(token.token_id);
      }
    };
    take(harness.MustRun({0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(other)}, {}}));
    for (int layer = 0; layer < 3; ++layer) {
      take(harness.MustRun({0, {}, {{spec.id, 0, length, layer, layer + 1}}, {other.id}}));
      EXPECT_EQ(ids.size(), layer == 2 ? 1u : 0u);
    }
    while (ids.size() < whole.size()) take(harness.MustRun({0, {}, {}, {spec.id}}));
    EXPECT_EQ(ids, whole);
    EXPECT_EQ(other_ids, std::vector<int32_t>(alone.begin(), alone.begin() + 4));
  }
}

TEST(CpuExecutor, ReleasedAccountCountsBothCopies) {
  ExecutorHarness harness(ReleasedModel(), WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 30, {1, 10, 10});  // one block: everything is chosen
  const int64_t length = static_cast<int64_t>(spec.token_ids.size());
  ASSERT_LT(length, 64);
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  harness.MustRun({0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(spec)}, {}});
  BranchPairs expected;
  for (int64_t row = 0; row < length; ++row) {
    const size_t i = static_cast<size_t>(row), n = static_cast<size_t>(length);
    const bool vision = spec.positions[i] != spec.positions[n + i] ||
                        spec.positions[i] != spec.positions[2 * n + i];
    if (!vision) {
      expected.dense += row + 1;
      continue;
    }
    expected.compressed += 2;  // its own block, two copies
    expected.selected += 2 * (row + 1);
    expected.window += 2 * std::min<int64_t>(40, row + 1);
  }
  const AttentionAccount account = harness.executor().Account(spec.id);
  for (const BranchPairs& layer : account.layers) EXPECT_EQ(layer, expected);
  EXPECT_EQ(account.dense_pairs, 3 * length * (length + 1) / 2);
}

TEST(CpuExecutor, CancelStopsBetweenLayers) {
  ExecutorHarness harness(ReleasedModel(), WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 30, {4, 14, 18});
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  spec.cancelled = cancelled;
  // Sees the first layer and cancels.
  class Canceller : public ForwardObserver {
   public:
    explicit Canceller(std::atomic<bool>& flag) : flag_(flag) {}
    void OnLayer(int, int, const TensorView&) override {
      flag_ = true;
      ++layers;
    }
    int layers = 0;

   private:
    std::atomic<bool>& flag_;
  };
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  harness.MustRun({0, ExecutorHarness::VisionOf(spec), {}, {}});
  Canceller canceller(*cancelled);
  harness.executor().Observe(spec.id, &canceller);
  const StepResult result = harness.MustRun({0, {}, {harness.WholePrefill(spec)}, {}});
  EXPECT_EQ(canceller.layers, 1);
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.skipped, (std::vector<SequenceId>{spec.id}));
}

TEST(CpuExecutor, AnNsaCheckpointAlsoRunsDense) {
  ExecutorHarness harness(NsaModel(), WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 30, {4, 14, 18});
  const std::vector<int32_t> sparse = harness.Answer(spec);
  spec.attention.semantics = AttentionSemantics::kDense;
  const std::vector<int32_t> dense = harness.Answer(spec);
  EXPECT_NE(sparse, dense);
  // Without vision rows both are the same.
  SequenceSpec text = harness.Prompt(2, 90, {});
  const std::vector<int32_t> expected = harness.Answer(text);
  text.attention.semantics = AttentionSemantics::kDense;
  EXPECT_EQ(harness.Answer(text), expected);
}

TEST(CpuExecutor, EvidenceOfDenseRowsIsTheirSoftmaxMass) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32, 50));
  SequenceSpec spec = harness.Prompt(1, 300, {});
  spec.attention.want_evidence = true;
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  harness.MustRun({0, {}, {harness.WholePrefill(spec)}, {}});
  const std::vector<double> in_one = harness.executor().Account(spec.id).block_share;
  ASSERT_EQ(in_one.size(), 5u);  // 300 tokens
  double sum = 0;
  for (double share : in_one) {
    EXPECT_GT(share, 0);
    sum += share;
  }
  EXPECT_NEAR(sum, 1, 1e-9);
  // The same from other pieces.
  harness.executor().ReleaseSequence(spec.id);
  ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
  harness.MustRun({0, {}, {harness.Prefill(spec, 0, 250)}, {}});
  harness.MustRun({0, {}, {harness.Prefill(spec, 250, 300)}, {}});
  const std::vector<double> in_two = harness.executor().Account(spec.id).block_share;
  ASSERT_EQ(in_two.size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(in_two[i], in_one[i], 1e-9);
}

TEST(CpuExecutor, RefusesBudgetsOutOfRange) {
  ExecutorHarness harness(NsaModel(), WithType(ComputeType::kF32));
  for (const auto& [blocks, window] : {std::pair{0, 40}, {-1, 40}, {2, 0}, {2, -7}}) {
    SequenceSpec spec = harness.Prompt(1, 30, {1, 4, 4});
    spec.attention.selected_blocks = blocks;
    spec.attention.window_tokens = window;
    EXPECT_EQ(harness.executor().AddSequence(spec).code(), absl::StatusCode::kInvalidArgument);
  }
}

struct BadSpec {
  const char* name;
  std::function<void(SequenceSpec&)> change;
  const char* reason;
};

TEST(CpuExecutor, RefusesWhatItCannotRun) {
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
         auto odd = std::make_shared<PatchBatch>(*s.visuals[0]);
         odd->grid.h = 5;
         s.visuals[0] = odd;
       },
       "SEQUENCE_INVALID"},
      {"short rows",
       [](SequenceSpec& s) {
         auto cut = std::make_shared<PatchBatch>(*s.visuals[0]);
         cut->rows.pop_back();
         s.visuals[0] = cut;
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

TEST(CpuExecutor, RefusesOptionsOutOfRange) {
  const std::function<void(CpuExecutorOptions&)> changes[] = {
      [](CpuExecutorOptions& o) { o.threads = -1; },
      [](CpuExecutorOptions& o) { o.max_rows = 0; },
      [](CpuExecutorOptions& o) { o.num_pages = -1; },
      [](CpuExecutorOptions& o) { o.kv_bytes = 0; },
      [](CpuExecutorOptions& o) { o.kv_bytes = 100; },
      [](CpuExecutorOptions& o) { o.max_context_tokens = -5; },
      [](CpuExecutorOptions& o) { o.attention = AttentionSemantics::kReleasedNsa; },
  };
  const test::TemporaryFolder folder;
  WriteModelFolder(TinyModel{}, folder);
  for (const auto& change : changes) {
    CpuExecutorOptions options;
    options.model_dir = folder.path();
    options.threads = 1;
    change(options);
    const auto executor = CreateCpuExecutor(options);
    EXPECT_EQ(executor.status().code(), absl::StatusCode::kInvalidArgument) << executor.status();
  }
}

TEST(CpuExecutor, FactoryDescribesTheModel) {
  const test::TemporaryFolder folder;
  WriteModelFolder(TinyModel{}, folder);
  CpuExecutorOptions options;
  options.model_dir = folder.path() + "/";
  options.threads = 1;
  options.compute_type = ComputeType::kF32;
  options.max_context_tokens = 777;
  ModelDescription description;
  const auto executor = CreateCpuExecutor(options, &description);
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

TEST(CpuExecutor, LoadsTheBundledModel) {
  CpuExecutorOptions options;
  options.model_dir = VIDEONSA_SOURCE_DIR "/deploy/demo_model/weights";
  options.threads = 1;
  ModelDescription description;
  const auto executor = CreateCpuExecutor(options, &description);
  ASSERT_TRUE(executor.ok()) << executor.status();
  EXPECT_EQ((*executor)->info().semantics, AttentionSemantics::kCausalNsa);
  EXPECT_TRUE((*executor)->info().has_gates);
  EXPECT_FALSE(description.random_weights);
}

TEST(CpuExecutor, HeadSizesOfEveryModelRun) {
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
