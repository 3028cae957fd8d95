#pragma once

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/executor/model_executor.h"
#include "runtime/ops/cpu_backend.h"
#include "tests/support/model/model_folder.h"

namespace videonsa::test {

/// Patches that survive being closed, so that a prompt can be run again.
class KeptPatches final : public PatchSource {
 public:
  explicit KeptPatches(std::shared_ptr<const PatchBatch> batch)
      : PatchSource(batch->grid), batch_(std::move(batch)) {}
  void Begin() override {}
  PatchRows Take(int t_begin, int t_end) override {
    return {t_begin, t_end,
            batch_->rows.data() + int64_t{t_begin} * grid().h * grid().w * kPatchDim, batch_};
  }
  void Close() override {}
  State state() const override {
    State state;
    state.t_ready = grid().t;
    return state;
  }
  const PatchBatch& batch() const { return *batch_; }

 private:
  const std::shared_ptr<const PatchBatch> batch_;
};

/// A tiny model in a temporary folder and prompts for it.
class ExecutorHarness {
 public:
  explicit ExecutorHarness(TinyModel model = {}, ExecutorOptions options = {}) {
    WriteModelFolder(model, folder_);
    Open(folder_.path(), std::move(options));
  }
  /// A model that is there already.
  struct Folder {
    explicit Folder(std::string path) : path(std::move(path)) {}
    const std::string path;
  };
  ExecutorHarness(const Folder& folder, ExecutorOptions options) {
    Open(folder.path, std::move(options));
  }

  ModelExecutor& executor() { return *executor_; }
  const std::string& dir() const { return dir_; }

  /// Text, a clip of `grid`, text; deterministic in `seed`. Pages are taken one after the other.
  SequenceSpec Prompt(uint64_t id, int text, PatchGrid grid, int max_tokens = 8) {
    const SpecialTokens& tokens = executor_->model().config().tokens;
    SequenceSpec spec;
    spec.id = SequenceId{id};
    std::mt19937_64 random(id);
    const auto add = [&](int32_t token, int32_t t, int32_t h, int32_t w) {
      spec.token_ids.push_back(token);
      t_.push_back(t);
      h_.push_back(h);
      w_.push_back(w);
    };
    t_.clear(), h_.clear(), w_.clear();
    int32_t next = 0;
    for (int i = 0; i < text / 2; ++i, ++next)
      add(static_cast<int32_t>(random() % 150), next, next, next);
    if (grid.t > 0) {
      add(tokens.vision_start, next, next, next);
      ++next;
      auto visual = std::make_shared<PatchBatch>();
      visual->grid = grid;
      std::normal_distribution<float> normal;
      visual->rows.resize(static_cast<size_t>(grid.num_patches()) * kPatchDim);
      for (float& value : visual->rows) value = normal(random);
      spec.vision_spans.push_back(
          {static_cast<int>(spec.token_ids.size()), static_cast<int>(grid.num_tokens()), 0});
      spec.visuals.push_back(std::make_shared<KeptPatches>(std::move(visual)));
      for (int t = 0; t < grid.t; ++t) {
        for (int h = 0; h < grid.h / 2; ++h) {
          for (int w = 0; w < grid.w / 2; ++w)
            add(tokens.video_pad, next + 2 * t, next + h, next + w);
        }
      }
      next += std::max({2 * (grid.t - 1), grid.h / 2 - 1, grid.w / 2 - 1}) + 1;
      add(tokens.vision_end, next, next, next);
      ++next;
    }
    for (int i = 0; i < text - text / 2; ++i, ++next) {
      add(static_cast<int32_t>(random() % 150), next, next, next);
    }
    spec.next_position = next;
    spec.positions = t_;
    spec.positions.insert(spec.positions.end(), h_.begin(), h_.end());
    spec.positions.insert(spec.positions.end(), w_.begin(), w_.end());
    spec.sampling.max_output_tokens = max_tokens;
    spec.attention.semantics = executor_->info().semantics;
    spec.attention.selected_blocks = executor_->info().selected_blocks;
    spec.attention.window_tokens = executor_->info().window_tokens;
    const size_t pages = (spec.token_ids.size() + static_cast<size_t>(max_tokens)) / 64 + 1;
    for (size_t i = 0; i < pages; ++i) spec.page_ids.push_back(next_page_++);
    return spec;
  }

  /// Slices of all visuals.
  static std::vector<VisionSlice> VisionOf(const SequenceSpec& spec) {
    std::vector<VisionSlice> slices;
    for (size_t i = 0; i < spec.visuals.size(); ++i) {
      slices.push_back({spec.id, static_cast<int>(i), 0, spec.visuals[i]->grid().t});
    }
    return slices;
  }
  PrefillSlice Prefill(const SequenceSpec& spec, int begin, int end) const {
    return {spec.id, begin, end, 0, executor_->info().num_layers};
  }
  PrefillSlice WholePrefill(const SequenceSpec& spec) const {
    return Prefill(spec, 0, static_cast<int>(spec.token_ids.size()));
  }

  StepResult MustRun(const StepPlan& plan) {
    auto result = executor_->Run(plan);
    EXPECT_TRUE(result.ok()) << result.status();
    return *std::move(result);
  }

  /// Adds, prefills in one piece and decodes alone; releases at the end.
  std::vector<int32_t> Answer(const SequenceSpec& spec) {
    EXPECT_TRUE(executor_->AddSequence(spec).ok());
    std::vector<int32_t> ids;
    StepPlan plan{0, VisionOf(spec), {WholePrefill(spec)}, {}};
    while (static_cast<int>(ids.size()) < spec.sampling.max_output_tokens) {
      const StepResult result = MustRun(plan);
      EXPECT_EQ(result.tokens.size(), 1u);
      ids.push_back(result.tokens[0].token_id);
      plan = {0, {}, {}, {spec.id}};
    }
    executor_->ReleaseSequence(spec.id);
    return ids;
  }

 private:
  void Open(const std::string& dir, ExecutorOptions options) {
    dir_ = dir;
    options.model_dir = dir;
    if (options.threads == 0) options.threads = 2;
    if (options.num_pages == 0) options.num_pages = 256;
    auto created = ModelExecutor::Create(options);
    EXPECT_TRUE(created.ok()) << created.status();
    executor_ = *std::move(created);
  }

  TemporaryFolder folder_;
  std::string dir_;
  std::unique_ptr<ModelExecutor> executor_;
  int32_t next_page_ = 0;
  std::vector<int32_t> t_, h_, w_;
};

/// Keeps the logits of every token and the hidden states that leave the last layer.
class LogitKeeper : public ForwardObserver {
 public:
  explicit LogitKeeper(int last_layer) : last_layer_(last_layer) {}
  void OnLayer(int layer, int row_begin, const TensorView& hidden) override {
    if (layer != last_layer_) return;
    hidden_.insert(hidden_.end(), hidden.f32(), hidden.f32() + hidden.num_elements());
  }
  void OnLogits(int step, const TensorView& logits) override {
    logits_.emplace_back(logits.f32(), logits.f32() + logits.num_elements());
  }
  const std::vector<float>& hidden() const { return hidden_; }
  const std::vector<std::vector<float>>& logits() const { return logits_; }

 private:
  const int last_layer_;
  std::vector<float> hidden_;
  std::vector<std::vector<float>> logits_;
};

/// Compute types of this machine.
inline std::vector<ComputeType> Types() {
  std::vector<ComputeType> types = {ComputeType::kF32};
  if (CpuBackend::AutoComputeType() == DType::kBF16) types.push_back(ComputeType::kBF16);
  return types;
}

inline ExecutorOptions WithType(ComputeType type, int max_rows = 512) {
  ExecutorOptions options;
  options.compute_type = type;
  options.max_rows = max_rows;
  return options;
}

/// Everything a run shows, for bitwise comparison.
struct Shown {
  std::vector<float> hidden;
  std::vector<std::vector<float>> logits;
  std::vector<int32_t> ids;
};

/// Prefills in pieces that end at `borders`, then decodes.
inline Shown RunInPieces(ExecutorHarness& harness, const SequenceSpec& spec,
                         const std::vector<int>& borders) {
  ModelExecutor& executor = harness.executor();
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

}  // namespace videonsa::test
