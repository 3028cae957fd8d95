// A model divided among ranks against the same model on one: logits, tokens, accounts, ends.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "runtime/base/error.h"
#include "runtime/executor/tensor_parallel_executor.h"
#include "tests/runtime/executor/executor_harness.h"

namespace videonsa {
namespace {

using test::ExecutorHarness;
using test::KeptPatches;
using test::LogitKeeper;
using test::RunInPieces;
using test::Shown;
using test::TinyModel;

constexpr float kTolerance = 1e-4f;  // of the goldens: the order of a sum is all that differs

TinyModel FourHeads(const std::string& semantics, int kv_heads = 4) {
  TinyModel model;
  model.semantics = semantics;
  model.q_heads = 8;
  model.kv_heads = kv_heads;
  model.layers = 3;
  model.intermediate = 102;  // no multiple of the ranks
  model.vocab = 163;
  model.selected_blocks = 2;
  model.window_tokens = 40;
  return model;
}

TinyModel Released() {
  TinyModel model = FourHeads("released_nsa");
  model.q_heads = 28;
  return model;
}

ExecutorOptions Options(int ranks, ComputeType type = ComputeType::kF32) {
  ExecutorOptions options;
  options.compute_type = type;
  options.max_rows = 100;
  options.threads = 2;
  options.num_pages = 64;
  options.tensor_parallel = ranks;
  return options;
}

// Ranks of a folder's model behind one executor, observed one by one.
class Ranks {
 public:
  Ranks(const std::string& dir, ExecutorOptions options) {
    options.model_dir = dir;
    absl::StatusOr<ModelRanks> opened = OpenRanks(options);
    EXPECT_TRUE(opened.ok()) << opened.status();
    group_ = opened->group.get();
    std::vector<std::unique_ptr<Executor>> executors;
    for (auto& executor : opened->executors) {
      ranks_.push_back(executor.get());
      executors.push_back(std::move(executor));
    }
    together_ =
        std::make_unique<TensorParallelExecutor>(std::move(opened->group), std::move(executors));
  }

  TensorParallelExecutor& executor() { return *together_; }
  const std::vector<ModelExecutor*>& ranks() const { return ranks_; }
  CollectiveGroup& group() { return *group_; }

  // As RunInPieces; what the first rank shows, after comparing it with the others.
  Shown RunInPieces(const SequenceSpec& spec, const std::vector<int>& borders) {
    std::vector<std::unique_ptr<LogitKeeper>> keepers;
    EXPECT_TRUE(together_->AddSequence(spec).ok());
    const int layers = together_->info().num_layers;
    for (ModelExecutor* rank : ranks_) {
      keepers.push_back(std::make_unique<LogitKeeper>(layers - 1));
      rank->Observe(spec.id, keepers.back().get());
    }
    Shown shown;
    const auto run = [&](const StepPlan& plan) {
      const absl::StatusOr<StepResult> result = together_->Run(plan);
      EXPECT_TRUE(result.ok()) << result.status();
      for (const SampledToken& token : result->tokens) shown.ids.push_back(token.token_id);
    };
    run({0, ExecutorHarness::VisionOf(spec), {}, {}});
    int begin = 0;
    const int length = static_cast<int>(spec.token_ids.size());
    for (int end : borders) {
      run({0, {}, {{spec.id, begin, end, 0, layers}}, {}});
      begin = end;
    }
    run({0, {}, {{spec.id, begin, length, 0, layers}}, {}});
    while (static_cast<int>(shown.ids.size()) < spec.sampling.max_output_tokens) {
      run({0, {}, {}, {spec.id}});
    }
    account_ = together_->Account(spec.id);
    together_->ReleaseSequence(spec.id);
    shown.hidden = keepers[0]->hidden();
    shown.logits = keepers[0]->logits();
    for (const auto& keeper : keepers) {
      EXPECT_EQ(keeper->hidden(), shown.hidden);
      EXPECT_EQ(keeper->logits(), shown.logits);
    }
    return shown;
  }
  const AttentionAccount& account() const { return account_; }

 private:
  CollectiveGroup* group_ = nullptr;
  std::vector<ModelExecutor*> ranks_;
  std::unique_ptr<TensorParallelExecutor> together_;
  AttentionAccount account_;
};

void ExpectClose(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - want[i]), kTolerance + kTolerance * std::abs(want[i]))
        << i << ": " << got[i] << ", expected " << want[i];
  }
}

void ExpectSameAnswer(const Shown& got, const Shown& want) {
  EXPECT_EQ(got.ids, want.ids);
  ASSERT_EQ(got.logits.size(), want.logits.size());
  for (size_t i = 0; i < got.logits.size(); ++i) ExpectClose(got.logits[i], want.logits[i]);
}

void ExpectEqual(const Shown& got, const Shown& want) {
  ExpectSameAnswer(got, want);
  ExpectClose(got.hidden, want.hidden);
}

struct Case {
  TinyModel model;
  std::vector<int> ranks;
};

TEST(TensorParallel, LogitsTokensAndAccountsAreThoseOfOneRank) {
  TinyModel tied = FourHeads("causal_nsa", 2);
  tied.tied = true;
  for (const Case& test : {Case{FourHeads("dense"), {2, 4}}, Case{FourHeads("causal_nsa"), {2, 4}},
                           Case{tied, {2}}, Case{Released(), {2, 3, 4}}}) {
    ExecutorHarness alone(test.model, Options(1));
    SequenceSpec spec = alone.Prompt(1, 30, {5, 10, 14});
    spec.attention.want_gates = true;
    spec.attention.want_evidence = true;
    const int length = static_cast<int>(spec.token_ids.size());
    const bool pieces = test.model.semantics != "released_nsa";
    const std::vector<int> borders = pieces ? std::vector<int>{17, 64, 150} : std::vector<int>{};
    const Shown want = RunInPieces(alone, spec, borders);
    ASSERT_TRUE(alone.executor().AddSequence(spec).ok());
    alone.MustRun({0, ExecutorHarness::VisionOf(spec), {alone.WholePrefill(spec)}, {}});
    for (int i = 1; i < spec.sampling.max_output_tokens; ++i) {
      alone.MustRun({0, {}, {}, {spec.id}});
    }
    const AttentionAccount account = alone.executor().Account(spec.id);
    for (const int num_ranks : test.ranks) {
      SCOPED_TRACE(testing::Message() << test.model.semantics << ", " << num_ranks << " ranks");
      Ranks ranks(alone.dir(), Options(num_ranks));
      ExpectEqual(ranks.RunInPieces(spec, borders), want);
      if (pieces) ExpectEqual(ranks.RunInPieces(spec, {63, 64, 65, length - 1}), want);
      EXPECT_EQ(ranks.account().layers, account.layers);
      EXPECT_EQ(ranks.account().dense_pairs, account.dense_pairs);
      ASSERT_EQ(ranks.account().gates.size(), account.gates.size());
      for (size_t i = 0; i < account.gates.size(); ++i) {
        EXPECT_NEAR(ranks.account().gates[i].compressed, account.gates[i].compressed, kTolerance);
        EXPECT_NEAR(ranks.account().gates[i].selected, account.gates[i].selected, kTolerance);
        EXPECT_NEAR(ranks.account().gates[i].window, account.gates[i].window, kTolerance);
      }
      ASSERT_EQ(ranks.account().block_share.size(), account.block_share.size());
      for (size_t i = 0; i < account.block_share.size(); ++i) {
        EXPECT_NEAR(ranks.account().block_share[i], account.block_share[i], kTolerance);
      }
    }
  }
}

TEST(TensorParallel, TheBundledModelAnswersAlike) {
  const std::string dir = std::string(VIDEONSA_SOURCE_DIR) + "/deploy/demo_model/weights";
  ExecutorHarness alone(ExecutorHarness::Folder(dir), Options(1));
  ASSERT_EQ(alone.executor().info().num_kv_heads, 2);
  Ranks ranks(dir, Options(2));
  for (const PatchGrid grid : {PatchGrid{}, PatchGrid{5, 16, 16}}) {
    // Its residual has large terms that cancel: single hidden states may be further apart.
    const SequenceSpec spec = alone.Prompt(1, 40, grid, 12);
    ExpectSameAnswer(ranks.RunInPieces(spec, {31, 33}), RunInPieces(alone, spec, {31, 33}));
  }
}

TEST(TensorParallel, PagesHoldARanksHeadsOnly) {
  ExecutorHarness alone(FourHeads("causal_nsa"), Options(1));
  const ExecutorInfo& one = alone.executor().info();
  for (const int num_ranks : {2, 4}) {
    ExecutorOptions options = Options(num_ranks);
    options.num_pages = 0;
    options.kv_bytes = 48 * one.page_bytes;
    Ranks ranks(alone.dir(), options);
    for (ModelExecutor* rank : ranks.ranks()) {
      EXPECT_EQ(rank->info().page_bytes, one.page_bytes / num_ranks);
      EXPECT_EQ(rank->model().language().shape().num_kv_heads, 4 / num_ranks);
    }
    EXPECT_EQ(ranks.executor().info().num_pages, 48);
    EXPECT_EQ(ranks.executor().info().page_bytes, one.page_bytes);
    EXPECT_EQ(ranks.executor().info().num_q_heads, 8);
  }
}

TEST(TensorParallel, ABatchOfSequencesAnswersAsAlone) {
  for (const ComputeType type : test::Types()) {
    ExecutorHarness alone(FourHeads("causal_nsa"), Options(1, type));
    // One rank gives other last bits, and bf16 makes more of them.
    Ranks ranks(alone.dir(), Options(2, type)), lone(alone.dir(), Options(2, type));
    std::vector<SequenceSpec> specs;
    std::map<SequenceId, std::vector<int32_t>> want, got;
    StepPlan plan;
    for (uint64_t id = 1; id <= 7; ++id) {
      specs.push_back(alone.Prompt(id, 5 + 9 * static_cast<int>(id),
                                   id % 2 ? PatchGrid{static_cast<int>(id), 4, 4} : PatchGrid{},
                                   6));
      specs.back().sampling.repetition_penalty = 1.1f;
      specs.back().sampling.num_logprobs = id == 3 ? 4 : -1;
      for (int32_t token : lone.RunInPieces(specs.back(), {}).ids) {
        want[specs.back().id].push_back(token);
      }
      ASSERT_TRUE(ranks.executor().AddSequence(specs.back()).ok());
      for (const VisionSlice& slice : ExecutorHarness::VisionOf(specs.back())) {
        plan.vision.push_back(slice);
      }
      plan.prefill.push_back(alone.WholePrefill(specs.back()));
    }
    for (int step = 0; step < 6; ++step) {
      const auto result = ranks.executor().Run(plan);
      ASSERT_TRUE(result.ok()) << result.status();
      for (const SampledToken& token : result->tokens) {
        got[token.sequence].push_back(token.token_id);
        EXPECT_EQ(token.logprob.alternatives.size(), token.sequence == specs[2].id ? 4u : 0u);
      }
      plan = {};
      for (const SequenceSpec& spec : specs) plan.decode.push_back(spec.id);
    }
    EXPECT_EQ(got, want);
  }
}

TEST(TensorParallel, EveryAttentionRunsOnDividedHeads) {
  ExecutorHarness alone(FourHeads("dense"), Options(1));
  Ranks ranks(alone.dir(), Options(4));
  SequenceSpec spec = alone.Prompt(1, 300, {1, 12, 12}, 3);
  for (AttentionSemantics semantics :
       {AttentionSemantics::kTriShape, AttentionSemantics::kMInference,
        AttentionSemantics::kFlexPrefill, AttentionSemantics::kXAttention}) {
    SCOPED_TRACE(SemanticsName(semantics));
    spec.attention.semantics = semantics;
    ExpectEqual(ranks.RunInPieces(spec, {}), RunInPieces(alone, spec, {}));
  }
}

TEST(TensorParallel, DividedHeadsRefuseReleasedNsaForOneRequest) {
  TinyModel model = Released();
  model.semantics = "causal_nsa";
  ExecutorHarness alone(model, Options(1));
  Ranks ranks(alone.dir(), Options(2));
  SequenceSpec spec = alone.Prompt(1, 30, {2, 4, 4});
  spec.attention.semantics = AttentionSemantics::kReleasedNsa;
  const absl::Status status = ranks.executor().AddSequence(spec);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorInfo(status)->reason, "ATTENTION_UNSUPPORTED");
  // Nothing of it stays: the same id is added again.
  spec.attention.semantics = AttentionSemantics::kCausalNsa;
  EXPECT_EQ(ranks.RunInPieces(spec, {}).ids, alone.Answer(spec));
}

TEST(TensorParallel, RanksThatDoNotDivideTheModelAreRefusedWithNumbers) {
  test::TemporaryFolder folder;
  WriteModelFolder(FourHeads("causal_nsa", 2), folder);
  const auto open = [&](int ranks) {
    ExecutorOptions options = Options(ranks);
    options.model_dir = folder.path();
    return CreateExecutor(options).status();
  };
  EXPECT_TRUE(open(2).ok());
  const absl::Status four = open(4);
  EXPECT_EQ(four.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorInfo(four)->reason, "FIELD_INVALID");
  EXPECT_TRUE(absl::StrContains(four.message(), "tensor_parallel 4")) << four;
  EXPECT_TRUE(absl::StrContains(four.message(), "2 KV heads")) << four;
  for (const int ranks : {-1, 0, 9}) {
    EXPECT_EQ(open(ranks).code(), absl::StatusCode::kInvalidArgument) << ranks;
  }
  // GPUs: as many as ranks, and they must be there.
  ExecutorOptions gpus = Options(2);
  gpus.model_dir = folder.path();
  gpus.device = DeviceKind::kCuda;
  gpus.rank_ordinals = {0};
  EXPECT_EQ(GetErrorInfo(CreateExecutor(gpus).status())->reason, "FIELD_INVALID");
  gpus.rank_ordinals = {4096, 4097};
  EXPECT_TRUE(absl::StartsWith(GetErrorInfo(CreateExecutor(gpus).status())->reason, "CUDA_"));
}

TEST(TensorParallel, ABrokenShardIsNamedAtItsPlaceInTheFile) {
  test::TemporaryFolder folder;
  const TinyModel model = FourHeads("dense");
  WriteModelFolder(model, folder);
  auto tensors = model.Tensors();
  // The last column of the last row of a matrix whose columns are divided.
  std::string& bytes = tensors.at("model.layers.1.mlp.down_proj.weight").bytes;
  bytes.replace(bytes.size() - 2, 2, std::string("\xC0\x7F", 2));  // NaN
  test::WriteFile(folder / "model.safetensors", test::SafetensorsBytes(tensors));
  ExecutorOptions options = Options(2);
  options.model_dir = folder.path();
  const absl::Status status = CreateExecutor(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "down_proj")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), absl::StrCat("element ", 64 * 102 - 1)))
      << status;
}

// A source that is closed after some rows, as a clip whose request has ended.
class ClosingPatches final : public PatchSource {
 public:
  ClosingPatches(std::shared_ptr<const PatchBatch> batch, int frames)
      : PatchSource(batch->grid), batch_(std::move(batch)), frames_(frames) {}
  void Begin() override {}
  PatchRows Take(int t_begin, int t_end) override {
    ++takes;
    if (t_begin >= frames_) return {t_begin, t_begin, nullptr, nullptr};
    return {t_begin, t_begin + 1,
            batch_->rows.data() + int64_t{t_begin} * grid().h * grid().w * kPatchDim, batch_};
  }
  void Close() override {}
  State state() const override { return {.t_ready = grid().t}; }

  std::atomic<int> takes = 0;

 private:
  const std::shared_ptr<const PatchBatch> batch_;
  const int frames_;
};

TEST(TensorParallel, AllRanksSeeTheSameRowsAndTheSameEnd) {
  ExecutorHarness alone(FourHeads("dense"), Options(1));
  Ranks ranks(alone.dir(), Options(4));
  SequenceSpec spec = alone.Prompt(1, 20, {6, 4, 4});
  const std::vector<int32_t> want = alone.Answer(spec);
  const auto batch =
      std::make_shared<PatchBatch>(static_cast<const KeptPatches&>(*spec.visuals[0]).batch());
  // One row block a call, fewer than ranks.
  auto source = std::make_shared<ClosingPatches>(batch, 6);
  spec.visuals = {source};
  EXPECT_EQ(ranks.RunInPieces(spec, {}).ids, want);
  EXPECT_EQ(source->takes, 6);
  spec.id = SequenceId{2};
  source = std::make_shared<ClosingPatches>(batch, 4);
  spec.visuals = {source};
  ASSERT_TRUE(ranks.executor().AddSequence(spec).ok());
  const auto result = ranks.executor().Run({0, ExecutorHarness::VisionOf(spec), {}, {}});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->skipped, (std::vector<SequenceId>{spec.id}));
  EXPECT_EQ(source->takes, 5);
  ranks.executor().ReleaseSequence(spec.id);
}

TEST(TensorParallel, CancelIsSeenByAllRanksInTheSameStep) {
  ExecutorHarness alone(FourHeads("causal_nsa"), Options(1));
  Ranks ranks(alone.dir(), Options(2));
  SequenceSpec spec = alone.Prompt(1, 30, {2, 10, 14});
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  spec.cancelled = cancelled;
  // Cancels while one rank is in the first layer: the step goes on on all of them.
  class Canceller : public ForwardObserver {
   public:
    explicit Canceller(std::atomic<bool>& flag) : flag_(flag) {}
    void OnLayer(int, int, const TensorView&) override { flag_ = true, ++layers; }
    int layers = 0;

   private:
    std::atomic<bool>& flag_;
  };
  ASSERT_TRUE(ranks.executor().AddSequence(spec).ok());
  ASSERT_TRUE(ranks.executor().Run({0, ExecutorHarness::VisionOf(spec), {}, {}}).ok());
  std::vector<Canceller> cancellers(2, Canceller(*cancelled));
  for (size_t i = 0; i < 2; ++i) ranks.ranks()[i]->Observe(spec.id, &cancellers[i]);
  const auto first = ranks.executor().Run({0, {}, {alone.Prefill(spec, 0, 64)}, {}});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->skipped.empty());
  EXPECT_EQ(cancellers[0].layers, 3);
  EXPECT_EQ(cancellers[1].layers, 3);
  const auto second = ranks.executor().Run({1, {}, {alone.Prefill(spec, 64, 100)}, {}});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->skipped, (std::vector<SequenceId>{spec.id}));
}

// A rank whose device is lost in step `fail_at`, before or after the step's work.
class FailingRank : public Executor {
 public:
  FailingRank(std::unique_ptr<Executor> rank, uint64_t fail_at, bool works)
      : rank_(std::move(rank)), fail_at_(fail_at), works_(works) {}
  const ExecutorInfo& info() const override { return rank_->info(); }
  absl::Status AddSequence(SequenceSpec spec) override {
    return rank_->AddSequence(std::move(spec));
  }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    if (plan.step != fail_at_) return rank_->Run(plan);
    if (works_) static_cast<void>(rank_->Run(plan));
    return MakeError(absl::StatusCode::kUnavailable, "DEVICE_LOST", "GPU 1: it fell off the bus");
  }
  AttentionAccount Account(SequenceId sequence) const override { return rank_->Account(sequence); }
  void ReleaseSequence(SequenceId sequence) override { rank_->ReleaseSequence(sequence); }

 private:
  const std::unique_ptr<Executor> rank_;
  const uint64_t fail_at_;
  const bool works_;
};

TEST(TensorParallel, ARankThatFailsEndsTheStepOfAll) {
  for (const int failing : {0, 1, 3}) {
    for (const bool works : {false, true}) {
      ExecutorHarness alone(FourHeads("causal_nsa"), Options(1));
      ExecutorOptions options = Options(4);
      options.model_dir = alone.dir();
      absl::StatusOr<ModelRanks> opened = OpenRanks(options);
      ASSERT_TRUE(opened.ok()) << opened.status();
      std::vector<std::unique_ptr<Executor>> executors;
      for (size_t i = 0; i < 4; ++i) {
        std::unique_ptr<Executor> rank = std::move(opened->executors[i]);
        if (static_cast<int>(i) == failing) {
          rank = std::make_unique<FailingRank>(std::move(rank), 2, works);
        }
        executors.push_back(std::move(rank));
      }
      TensorParallelExecutor together(std::move(opened->group), std::move(executors));
      SequenceSpec spec = alone.Prompt(1, 30, {2, 10, 14});
      ASSERT_TRUE(together.AddSequence(spec).ok());
      ASSERT_TRUE(together.Run({1, ExecutorHarness::VisionOf(spec), {}, {}}).ok());
      const absl::Status lost = together.Run({2, {}, {alone.WholePrefill(spec)}, {}}).status();
      EXPECT_EQ(lost.code(), absl::StatusCode::kUnavailable);
      EXPECT_EQ(GetErrorInfo(lost)->reason, "DEVICE_LOST");
      EXPECT_TRUE(absl::StrContains(lost.message(), "fell off the bus")) << lost;
    }
  }
}

// A rank that gives another token than the others.
class LyingRank : public Executor {
 public:
  explicit LyingRank(std::unique_ptr<Executor> rank) : rank_(std::move(rank)) {}
  const ExecutorInfo& info() const override { return rank_->info(); }
  absl::Status AddSequence(SequenceSpec spec) override {
    return rank_->AddSequence(std::move(spec));
  }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    absl::StatusOr<StepResult> result = rank_->Run(plan);
    for (SampledToken& token : result->tokens) ++token.token_id;
    return result;
  }
  AttentionAccount Account(SequenceId sequence) const override { return rank_->Account(sequence); }
  void ReleaseSequence(SequenceId sequence) override { rank_->ReleaseSequence(sequence); }

 private:
  const std::unique_ptr<Executor> rank_;
};

TEST(TensorParallel, RanksThatDisagreeAreALostDevice) {
  ExecutorHarness alone(FourHeads("dense"), Options(1));
  ExecutorOptions options = Options(2);
  options.model_dir = alone.dir();
  absl::StatusOr<ModelRanks> opened = OpenRanks(options);
  ASSERT_TRUE(opened.ok()) << opened.status();
  std::vector<std::unique_ptr<Executor>> executors;
  executors.push_back(std::move(opened->executors[0]));
  executors.push_back(std::make_unique<LyingRank>(std::move(opened->executors[1])));
  TensorParallelExecutor together(std::move(opened->group), std::move(executors));
  const SequenceSpec spec = alone.Prompt(1, 30, {});
  ASSERT_TRUE(together.AddSequence(spec).ok());
  const absl::Status status = together.Run({7, {}, {alone.WholePrefill(spec)}, {}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(status.message(), "step 7")) << status;
}

}  // namespace
}  // namespace videonsa
