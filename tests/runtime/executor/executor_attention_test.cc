// The executor with every attention: pieces, accounts, evidence, budgets.
#include <algorithm>
#include <atomic>
#include <memory>

#include "tests/runtime/executor/executor_harness.h"

namespace videonsa {
namespace {

using test::ExecutorHarness;
using test::RunInPieces;
using test::Shown;
using test::TinyModel;
using test::Types;
using test::WithType;

TinyModel NsaModel() {
  TinyModel model;
  model.semantics = "causal_nsa";
  model.selected_blocks = 2;
  model.window_tokens = 40;
  return model;
}

TEST(ExecutorAttention, ChunkedCausalNsaEqualsOnePiece) {
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

TEST(ExecutorAttention, CausalNsaAccountCountsItsPairs) {
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

TEST(ExecutorAttention, LayerSlicesEqualOnePiece) {
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

TEST(ExecutorAttention, ReleasedAccountCountsBothCopies) {
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

TEST(ExecutorAttention, CancelStopsBetweenLayers) {
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

TEST(ExecutorAttention, AnNsaCheckpointAlsoRunsDense) {
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

TEST(ExecutorAttention, EvidenceOfDenseRowsIsTheirSoftmaxMass) {
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

// In the first layer keys and the question's rows do not depend on what vision rows choose.
TEST(ExecutorAttention, EvidenceIsNotWhatVisionRowsChose) {
  std::vector<std::vector<double>> shares;
  for (const int blocks : {1, 3}) {
    TinyModel model = NsaModel();
    model.layers = 1;
    model.selected_blocks = blocks;
    ExecutorHarness harness(model, WithType(ComputeType::kF32));
    SequenceSpec spec = harness.Prompt(1, 30, {4, 14, 18});
    spec.attention.want_evidence = true;
    ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
    harness.MustRun({0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(spec)}, {}});
    shares.push_back(harness.executor().Account(spec.id).block_share);
  }
  ASSERT_GT(shares[0].size(), 3u);
  ASSERT_EQ(shares[0].size(), shares[1].size());
  // Threads add what their rows saw; the order of the sums is theirs.
  for (size_t i = 0; i < shares[0].size(); ++i) EXPECT_NEAR(shares[0][i], shares[1][i], 1e-9);
}

TEST(ExecutorAttention, RefusesBudgetsOutOfRange) {
  ExecutorHarness harness(NsaModel(), WithType(ComputeType::kF32));
  for (const auto& [blocks, window] : {std::pair{0, 40}, {-1, 40}, {2, 0}, {2, -7}}) {
    SequenceSpec spec = harness.Prompt(1, 30, {1, 4, 4});
    spec.attention.selected_blocks = blocks;
    spec.attention.window_tokens = window;
    EXPECT_EQ(harness.executor().AddSequence(spec).code(), absl::StatusCode::kInvalidArgument);
  }
}

// Rows [begin, end) of a prompt alone, as a prompt of their own.
SequenceSpec Cut(SequenceSpec spec, int begin, int end) {
  const auto cut = [&](const std::vector<int32_t>& from, size_t offset) {
    return std::vector<int32_t>(from.begin() + static_cast<long>(offset) + begin,
                                from.begin() + static_cast<long>(offset) + end);
  };
  std::vector<int32_t> positions;
  for (size_t axis = 0; axis < 3; ++axis) {
    const std::vector<int32_t> one = cut(spec.positions, axis * spec.token_ids.size());
    positions.insert(positions.end(), one.begin(), one.end());
  }
  spec.token_ids = cut(spec.token_ids, 0);
  spec.positions = std::move(positions);
  for (VisionSpan& span : spec.vision_spans) span.token_begin -= begin;
  return spec;
}

// What each row must count in `causal_nsa` (by token id) and in `released_nsa` (by position), in
// prompts of at most one block, where every visible block is chosen.
BranchPairs CountShortPrompt(const SequenceSpec& spec, int window) {
  const size_t n = spec.token_ids.size();
  const bool released = spec.attention.semantics == AttentionSemantics::kReleasedNsa;
  BranchPairs pairs;
  for (size_t i = 0; i < n; ++i) {
    const bool by_position = spec.positions[i] != spec.positions[n + i] ||
                             spec.positions[i] != spec.positions[2 * n + i];
    const bool vision = released ? by_position : spec.token_ids[i] == test::kVideoPad;
    const int64_t row = static_cast<int64_t>(i);
    if (!vision) {
      pairs.dense += row + 1;
      continue;
    }
    const int copies = released ? 2 : 1;
    pairs.compressed += released ? 2 : (row + 1) / 64;
    pairs.selected += copies * (row + 1);
    pairs.window += copies * std::min<int64_t>(window, row + 1);
  }
  return pairs;
}

TEST(ExecutorAttention, ShortAndOddPromptsRunAndCountInEverySemantics) {
  for (const TinyModel& model : {NsaModel(), ReleasedModel()}) {
    ExecutorHarness harness(model, WithType(ComputeType::kF32));
    const SequenceSpec clip = harness.Prompt(3, 20, {3, 4, 4});  // 12 pads among text
    const int first = clip.vision_spans[0].token_begin;
    const size_t at = static_cast<size_t>(first), n = clip.token_ids.size();
    // The first pad of a visual is text by position.
    ASSERT_EQ(clip.positions[at], clip.positions[n + at]);
    ASSERT_EQ(clip.positions[at], clip.positions[2 * n + at]);
    const std::pair<const char*, SequenceSpec> prompts[] = {
        {"one token", harness.Prompt(1, 1, {})},
        {"shorter than a block, no vision rows", harness.Prompt(2, 17, {})},
        {"shorter than a block", clip},
        {"only vision rows", Cut(clip, first, first + 12)},
        {"vision first, text behind", Cut(clip, first, static_cast<int>(n))},
        {"one pad, text by position", harness.Prompt(5, 4, {1, 2, 2})},
        {"one pad and nothing else", Cut(harness.Prompt(6, 4, {1, 2, 2}), 3, 4)},
    };
    for (const auto& [name, spec] : prompts) {
      SCOPED_TRACE(testing::Message() << model.semantics << ", " << name);
      ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
      const StepResult result =
          harness.MustRun({0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(spec)}, {}});
      EXPECT_EQ(result.tokens.size(), 1u);
      const AttentionAccount account = harness.executor().Account(spec.id);
      const BranchPairs expected = CountShortPrompt(spec, model.window_tokens);
      for (const BranchPairs& layer : account.layers) EXPECT_EQ(layer, expected);
      harness.executor().ReleaseSequence(spec.id);
    }
  }
}

TEST(ExecutorAttention, RowsThatNobodyNeedsAreLeftOutOfTheLastLayerExactly) {
  // An observer sees every row of every layer; without one the last layer finishes one row.
  for (const TinyModel& model : {TinyModel(), NsaModel(), ReleasedModel()}) {
    ExecutorHarness harness(model, WithType(ComputeType::kF32, 100));
    SequenceSpec spec = harness.Prompt(1, 30, {4, 14, 18});
    spec.sampling.num_logprobs = 0;
    const Shown observed = RunInPieces(harness, spec, {});
    ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
    StepPlan plan{0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(spec)}, {}};
    for (const int32_t id : observed.ids) {
      const StepResult result = harness.MustRun(plan);
      ASSERT_EQ(result.tokens.size(), 1u);
      EXPECT_EQ(result.tokens[0].token_id, id) << model.semantics;
      plan = {0, {}, {}, {spec.id}};
    }
    harness.executor().ReleaseSequence(spec.id);
  }
}

TEST(ExecutorAttention, PatternsThatKeepEverythingEqualDense) {
  // 150 tokens: tri_shape keeps 128 + 3968 keys, minference more columns than there are.
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 150, {});
  const std::vector<int32_t> dense = harness.Answer(spec);
  for (AttentionSemantics semantics :
       {AttentionSemantics::kTriShape, AttentionSemantics::kMInference}) {
    spec.attention.semantics = semantics;
    EXPECT_EQ(harness.Answer(spec), dense) << SemanticsName(semantics);
    ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
    harness.MustRun({0, {}, {harness.WholePrefill(spec)}, {}});
    const AttentionAccount account = harness.executor().Account(spec.id);
    EXPECT_EQ(account.layers.at(0), (BranchPairs{0, 150 * 151 / 2, 0, 0}));
    harness.executor().ReleaseSequence(spec.id);
  }
}

TEST(ExecutorAttention, EveryPatternRunsAndStaysWithinDense) {
  ExecutorHarness harness({}, WithType(ComputeType::kF32));
  SequenceSpec spec = harness.Prompt(1, 700, {1, 12, 12});
  for (AttentionSemantics semantics :
       {AttentionSemantics::kTriShape, AttentionSemantics::kMInference,
        AttentionSemantics::kFlexPrefill, AttentionSemantics::kXAttention}) {
    spec.attention.semantics = semantics;
    EXPECT_EQ(harness.Answer(spec), harness.Answer(spec)) << SemanticsName(semantics);
    ASSERT_TRUE(harness.executor().AddSequence(spec).ok());
    harness.MustRun({0, ExecutorHarness::VisionOf(spec), {harness.WholePrefill(spec)}, {}});
    const AttentionAccount account = harness.executor().Account(spec.id);
    EXPECT_GT(account.total().selected, 0);
    EXPECT_LE(account.total().total(), account.dense_pairs);
    harness.executor().ReleaseSequence(spec.id);
  }
}

}  // namespace
}  // namespace videonsa
