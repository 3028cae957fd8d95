// Kind `device`: a model folder on a GPU beside the same folder on the CPU in fp32, over prompts
// made up here; and the parts of it that the kind `model` uses for its own prompts.
#include "tests/golden/check_device.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/status_macros.h"
#include "tests/golden/checks.h"

namespace videonsa::golden {
namespace {

constexpr int kPages = 256;
constexpr int kAnswerTokens = 12;
constexpr uint64_t kTrainedPrompts = 6;  // the others attend densely

// Keeps the logits that every token is chosen from, and the blocks that prompt rows chose.
class TraceKeeper : public ForwardObserver {
 public:
  TraceKeeper(Backend& backend, bool keep_rows, AnswerTrace& trace)
      : backend_(backend), keep_rows_(keep_rows), trace_(trace) {}
  void OnQueries(int layer, int row_begin, const TensorView& q, const PagedKv& kv) override {
    if (!keep_rows_ || kv.dtype != DType::kF32) return;
    trace_.layers.resize(std::max(trace_.layers.size(), static_cast<size_t>(layer) + 1));
    KeepRows(q, row_begin, kv, backend_, trace_.layers[static_cast<size_t>(layer)]);
  }
  void OnAttention(int layer, int row_begin, const TensorView&, const TensorView& blocks) override {
    if (blocks.data == nullptr) return;
    LayerChoice choice{layer, row_begin, {}};
    choice.blocks.resize(static_cast<size_t>(blocks.num_elements()));
    backend_.Download(blocks, choice.blocks.data());
    trace_.choices.push_back(std::move(choice));
  }
  void OnLogits(int, const TensorView& logits) override {
    trace_.logits.push_back(HostFloats(backend_, logits));
  }

 private:
  Backend& backend_;
  const bool keep_rows_;
  AnswerTrace& trace_;
};

// Between the best two logits that could be sampled.
double TopGap(const std::vector<float>& logits, const std::vector<int32_t>& suppressed) {
  float first = -INFINITY, second = -INFINITY;
  for (size_t id = 0; id < logits.size(); ++id) {
    const float logit = logits[id];
    if (std::find(suppressed.begin(), suppressed.end(), id) != suppressed.end()) continue;
    if (logit > first) {
      second = std::exchange(first, logit);
    } else {
      second = std::max(second, logit);
    }
  }
  return static_cast<double>(first) - static_cast<double>(second);
}

// How far an answer is from the CPU's in fp32, up to the first id that differs: what follows has
// another past.
struct Difference {
  size_t equal_ids = 0;
  double largest = 0;   // of a logit
  double relative = 0;  // of a row of logits
  double gap = INFINITY;
  size_t choices = 0;
  size_t equal_choices = 0;

  Difference(const AnswerTrace& want, const AnswerTrace& have) {
    for (size_t step = 0; step < want.ids.size(); ++step) {
      AddRow(want.logits[step], have.logits[step]);
      if (want.ids[step] != have.ids[step]) {
        gap = TopGap(want.logits[step], want.suppressed);
        break;
      }
      ++equal_ids;
    }
    for (size_t i = 0; i < want.choices.size() && i < have.choices.size(); ++i) {
      const std::vector<int32_t>& a = want.choices[i].blocks;
      const std::vector<int32_t>& b = have.choices[i].blocks;
      choices += a.size();
      for (size_t at = 0; at < a.size() && at < b.size(); ++at) equal_choices += a[at] == b[at];
    }
  }

  void AddRow(const std::vector<float>& want, const std::vector<float>& have) {
    double difference2 = 0, norm2 = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double difference = static_cast<double>(have[i]) - static_cast<double>(want[i]);
      largest = std::max(largest, std::isnan(difference) ? INFINITY : std::abs(difference));
      difference2 += difference * difference;
      norm2 += static_cast<double>(want[i]) * static_cast<double>(want[i]);
    }
    const double row = std::sqrt(difference2 / norm2);
    relative = std::max(relative, std::isnan(row) ? INFINITY : row);
  }

  std::string Text(const AnswerTrace& want) const {
    std::string text = absl::StrFormat(
        "%d of %d ids equal, largest logit error %.3g, largest relative error of a row %.2e",
        equal_ids, want.ids.size(), largest, relative);
    if (choices > 0) {
      absl::StrAppendFormat(
          &text, ", %.3f %% of %d choices equal",
          100.0 * static_cast<double>(equal_choices) / static_cast<double>(choices), choices);
    }
    if (equal_ids < want.ids.size()) {
      absl::StrAppendFormat(&text, ", gap at the other id %.3g", gap);
    }
    return text;
  }
};

}  // namespace

SequenceSpec MadeUpPrompt(const ModelConfig& config, const ExecutorInfo& info, uint64_t seed,
                          int text, PatchGrid grid) {
  SequenceSpec spec;
  std::mt19937_64 random(seed);
  std::vector<int32_t> axes[3];
  const auto add = [&](int32_t token, int t, int h, int w) {
    spec.token_ids.push_back(token);
    axes[0].push_back(t), axes[1].push_back(h), axes[2].push_back(w);
  };
  int next = 0;
  const auto add_text = [&](int count) {
    for (int i = 0; i < count; ++i, ++next) {
      add(static_cast<int32_t>(random() % static_cast<uint64_t>(config.text.vocab_size / 2)), next,
          next, next);
    }
  };
  add_text(text / 2);
  if (grid.t > 0) {
    auto visual = std::make_shared<PatchBatch>();
    visual->grid = grid;
    std::normal_distribution<float> normal;
    visual->rows.resize(static_cast<size_t>(grid.num_patches()) * kPatchDim);
    for (float& value : visual->rows) value = normal(random);
    spec.vision_spans.push_back(
        {static_cast<int>(spec.token_ids.size()), static_cast<int>(grid.num_tokens()), 0});
    spec.visuals.push_back(WholePatches(std::move(visual)));
    for (int t = 0; t < grid.t; ++t) {
      for (int h = 0; h < grid.h / 2; ++h) {
        for (int w = 0; w < grid.w / 2; ++w) {
          add(config.tokens.video_pad, next + 2 * t, next + h, next + w);
        }
      }
    }
    next += std::max({2 * (grid.t - 1), grid.h / 2 - 1, grid.w / 2 - 1}) + 1;
  }
  add_text(text - text / 2);
  spec.next_position = next;
  for (const auto& axis : axes) {
    spec.positions.insert(spec.positions.end(), axis.begin(), axis.end());
  }
  spec.sampling.max_output_tokens = kAnswerTokens;
  spec.sampling.suppress_eos = true;
  spec.attention.semantics = info.semantics;
  spec.attention.selected_blocks = info.selected_blocks;
  spec.attention.window_tokens = info.window_tokens;
  return spec;
}

absl::StatusOr<std::unique_ptr<ModelExecutor>> MakeExecutor(const std::string& model_dir,
                                                            DeviceKind device, ComputeType type) {
  ExecutorOptions options;
  options.model_dir = model_dir;
  options.device = device;
  options.compute_type = type;
  options.num_pages = kPages;
  return ModelExecutor::Create(options);
}

absl::StatusOr<AnswerTrace> TraceAnswer(ModelExecutor& executor, SequenceSpec spec) {
  spec.id = SequenceId{77};
  const int tokens = spec.sampling.max_output_tokens;
  spec.page_ids.resize((spec.token_ids.size() + static_cast<size_t>(tokens)) / kPageTokens + 1);
  std::iota(spec.page_ids.begin(), spec.page_ids.end(), 0);
  std::reverse(spec.page_ids.begin(), spec.page_ids.end());
  AnswerTrace trace;
  if (spec.sampling.suppress_eos) trace.suppressed = executor.model().config().tokens.stop;
  trace.attention = spec.attention;
  trace.shape = executor.model().language().shape();
  TraceKeeper keeper(executor.backend(), executor.info().gpu < 0, trace);
  StepPlan plan;
  for (size_t i = 0; i < spec.visuals.size(); ++i) {
    plan.vision.push_back({spec.id, static_cast<int>(i), 0, spec.visuals[i]->grid().t});
  }
  plan.prefill.push_back(
      {spec.id, 0, static_cast<int>(spec.token_ids.size()), 0, executor.info().num_layers});
  VNSA_RETURN_IF_ERROR(executor.AddSequence(spec));
  executor.Observe(spec.id, &keeper);
  while (static_cast<int>(trace.ids.size()) < tokens) {
    VNSA_ASSIGN_OR_RETURN(const StepResult result, executor.Run(plan));
    if (result.tokens.size() != 1) return absl::InternalError("a step without a token");
    trace.ids.push_back(result.tokens[0].token_id);
    plan = StepPlan{trace.ids.size(), {}, {}, {spec.id}};
  }
  executor.ReleaseSequence(spec.id);
  return trace;
}

void CompareTraces(const std::string& label, const AnswerTrace& cpu, const AnswerTrace& gpu,
                   const AnswerTrace* cpu_bf16, Reporter& reporter) {
  const Difference own(cpu, gpu);
  std::string detail = own.Text(cpu);
  double tolerance = kExactError;
  if (cpu_bf16 != nullptr) {
    const Difference theirs(cpu, *cpu_bf16);
    absl::StrAppend(&detail, "; the CPU's bf16: ", theirs.Text(cpu));
    tolerance = std::max(kBf16Error, kOfCpuBf16 * theirs.relative);
  }
  if (cpu_bf16 == nullptr) {
    if (const ChoiceTies ties = FirstDifferences(cpu, gpu); ties.layer >= 0) {
      reporter.Record(ties.decided == 0, label, "answer", absl::StrCat(detail, "; ", ties.Text()));
      return;
    }
  }
  // Each of two logits may be off.
  const bool decided = own.equal_ids < cpu.ids.size() && own.gap > 2 * own.largest;
  reporter.Record(!decided && own.relative <= tolerance, label, "answer", detail);
}

void CheckDevice(const GoldenOptions& options, Reporter& reporter) {
  auto cpu = MakeExecutor(options.dir, DeviceKind::kCpu, ComputeType::kF32);
  auto cpu_bf16 = MakeExecutor(options.dir, DeviceKind::kCpu, ComputeType::kBF16);
  if (!reporter.ExpectOk("cpu", "model", cpu.status())) return;
  if (!reporter.ExpectOk("cpu in bf16", "model", cpu_bf16.status())) return;
  for (const bool exact : {true, false}) {
    const std::string type = exact ? "f32" : "bf16";
    auto gpu = MakeExecutor(options.dir, DeviceKind::kCuda,
                            exact ? ComputeType::kF32 : ComputeType::kBF16);
    if (!reporter.ExpectOk(type, "model", gpu.status())) return;
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      const int frames = static_cast<int>(seed % 3) * 6, side = 4 + 4 * static_cast<int>(seed % 4);
      // Made twice: patches are taken once.
      const auto prompt = [&] {
        SequenceSpec spec =
            MadeUpPrompt((*cpu)->model().config(), (*cpu)->info(), seed,
                         20 + 37 * static_cast<int>(seed), {frames, side, side + 2});
        if (seed > kTrainedPrompts) spec.attention.semantics = AttentionSemantics::kDense;
        return spec;
      };
      const std::string label =
          absl::StrCat("prompt ", seed, " of ", prompt().token_ids.size(), " tokens, ", type);
      const auto want = TraceAnswer(**cpu, prompt());
      const auto have = TraceAnswer(**gpu, prompt());
      if (!reporter.ExpectOk(label, "cpu", want.status())) continue;
      if (!reporter.ExpectOk(label, "gpu", have.status())) continue;
      if (exact) {
        CompareTraces(label, *want, *have, nullptr, reporter);
        continue;
      }
      const auto rounded = TraceAnswer(**cpu_bf16, prompt());
      if (!reporter.ExpectOk(label, "cpu in bf16", rounded.status())) continue;
      CompareTraces(label, *want, *have, &*rounded, reporter);
    }
  }
  CheckTogether(options.dir, reporter);
}

}  // namespace videonsa::golden
