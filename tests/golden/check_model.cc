// Kind `model`: whole forward passes and greedy answers of a model folder (dense_runs, nsa_runs).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/base/status_macros.h"
#include "runtime/executor/model_executor.h"
#include "tests/golden/check_device.h"
#include "tests/golden/checks.h"
#include "tests/golden/model_case.h"

namespace videonsa::golden {
namespace {

// A choice is compared where the golden's gap between the last chosen and the first unchosen score
// is above the rounding of either side (attention.md section 7).
constexpr float kClearGap = 1e-5f;

// Keeps what a prefill shows.
class Recorder : public ForwardObserver {
 public:
  explicit Recorder(Backend& backend) : backend_(backend) {}
  void OnEmbeddings(int row_begin, const TensorView& hidden) override {
    Keep("inputs_embeds", row_begin, hidden);
  }
  void OnAttention(int layer, int row_begin, const TensorView& attended,
                   const TensorView& blocks) override {
    Keep(absl::StrCat("attn_out_layer", layer), row_begin, attended);
    if (blocks.data == nullptr) return;
    std::vector<int32_t> values(static_cast<size_t>(blocks.num_elements()));
    backend_.Download(blocks, values.data());
    blocks_[layer].insert(blocks_[layer].end(), values.begin(), values.end());
  }
  void OnLayer(int layer, int row_begin, const TensorView& hidden) override {
    Keep(absl::StrCat("hidden_layer", layer), row_begin, hidden);
  }
  void OnLogits(int step, const TensorView& logits) override {
    if (step == 0) Keep("logits_last", 0, logits);
  }

  struct Matrix {
    int64_t columns = 0;
    std::vector<float> values;
  };
  const Matrix* Find(const std::string& name) const {
    const auto found = matrices_.find(name);
    return found == matrices_.end() ? nullptr : &found->second;
  }
  const std::vector<int32_t>* Blocks(int layer) const {
    const auto found = blocks_.find(layer);
    return found == blocks_.end() ? nullptr : &found->second;
  }

 private:
  void Keep(const std::string& name, int row_begin, const TensorView& view) {
    Matrix& matrix = matrices_[name];
    matrix.columns = view.cols();
    const size_t end = static_cast<size_t>((row_begin + view.rows()) * view.cols());
    if (matrix.values.size() < end) matrix.values.resize(end);
    const std::vector<float> values = HostFloats(backend_, view);
    std::copy(values.begin(), values.end(), matrix.values.begin() + row_begin * view.cols());
  }

  Backend& backend_;
  std::map<std::string, Matrix> matrices_;
  std::map<int, std::vector<int32_t>> blocks_;
};

std::vector<float> PickRows(const std::vector<float>& values, int64_t columns,
                            const std::vector<int64_t>& rows) {
  std::vector<float> picked;
  for (int64_t row : rows) {
    picked.insert(picked.end(), values.begin() + row * columns,
                  values.begin() + (row + 1) * columns);
  }
  return picked;
}

// Checks one case on one model folder.
class CaseRun {
 public:
  CaseRun(const GoldenCase& golden, const std::string& label, ModelExecutor& executor,
          Reporter& reporter)
      : golden_(golden), label_(label), executor_(executor), reporter_(reporter) {}

  void Check(const std::vector<GoldenCase>& siblings) {
    const SpecialTokens& tokens = executor_.model().config().tokens;
    const PadIds pads = {tokens.image_pad, tokens.video_pad};
    Recorder recorder(executor_.backend());
    for (const char* penalty : {"1.00", "1.05"}) {
      const std::string name = absl::StrCat("greedy_ids_rp", penalty);
      const GoldenTensor* ids = golden_.Find(name);
      if (ids == nullptr) continue;
      // A run takes its patches: every run gets its own.
      absl::StatusOr<SequenceSpec> spec = SpecOfCase(golden_, siblings, pads);
      if (!reporter_.ExpectOk(label_, "inputs", spec.status())) return;
      Prepare(std::atof(penalty), static_cast<int>(ids->num_elements()), *spec);
      const bool first = !checked_;
      const absl::StatusOr<std::vector<int32_t>> answer =
          Generate(*spec, first ? &recorder : nullptr);
      if (!reporter_.ExpectOk(label_, name, answer.status())) return;
      if (first) CheckTensors(recorder);
      checked_ = true;
      reporter_.ExpectEqual(label_, name, *answer, ids->Integers());
      executor_.ReleaseSequence(spec->id);
    }
  }

 private:
  void Prepare(double penalty, int max_tokens, SequenceSpec& spec) {
    spec.id = SequenceId{1};
    spec.sampling.max_output_tokens = max_tokens;
    spec.sampling.repetition_penalty = static_cast<float>(penalty);
    spec.sampling.suppress_eos = golden_.json.contains("eos_disabled");
    spec.attention.semantics = executor_.info().semantics;
    if (golden_.json.contains("block_counts")) {
      spec.attention.selected_blocks = golden_.json["block_counts"].get<int>();
      spec.attention.window_tokens = golden_.json["window_size"].get<int>();
    }
    const size_t pages = (spec.token_ids.size() + static_cast<size_t>(max_tokens)) / 64 + 1;
    spec.page_ids.resize(pages);
    std::iota(spec.page_ids.begin(), spec.page_ids.end(), 0);
    std::reverse(spec.page_ids.begin(), spec.page_ids.end());
  }

  absl::StatusOr<std::vector<int32_t>> Generate(const SequenceSpec& spec, Recorder* recorder) {
    VNSA_RETURN_IF_ERROR(executor_.AddSequence(spec));
    if (recorder != nullptr) executor_.Observe(spec.id, recorder);
    StepPlan plan;
    for (size_t i = 0; i < spec.visuals.size(); ++i) {
      plan.vision.push_back({spec.id, static_cast<int>(i), 0, spec.visuals[i]->grid().t});
    }
    plan.prefill.push_back(
        {spec.id, 0, static_cast<int>(spec.token_ids.size()), 0, executor_.info().num_layers});
    std::vector<int32_t> ids;
    while (ids.size() < static_cast<size_t>(spec.sampling.max_output_tokens)) {
      VNSA_ASSIGN_OR_RETURN(const StepResult result, executor_.Run(plan));
      if (result.tokens.size() != 1) return absl::InternalError("a step without a token");
      ids.push_back(result.tokens[0].token_id);
      plan = StepPlan{ids.size(), {}, {}, {spec.id}};
    }
    return ids;
  }

  // Rows that the golden keeps of a per-row tensor.
  std::vector<int64_t> RowsOf(const std::string& tensor, int64_t available) const {
    const GoldenTensor* rows = golden_.Find("rows");
    if (rows != nullptr && tensor != "inputs_embeds") return rows->Integers();
    std::vector<int64_t> all(static_cast<size_t>(available));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }

  void CheckTensors(const Recorder& recorder) {
    CheckFeatures("vit_rows_image", "vit_row_numbers_image", true);
    CheckFeatures("vit_rows_video", "vit_row_numbers_video", false);
    for (const auto& [name, tensor] : golden_.tensors) {
      if (absl::StartsWith(name, "hidden_layer") || absl::StartsWith(name, "attn_out_layer") ||
          name == "inputs_embeds" || name == "logits_last") {
        const Recorder::Matrix* actual = recorder.Find(name);
        if (actual == nullptr) {
          reporter_.Record(false, label_, name, "never seen");
          continue;
        }
        const int64_t rows = static_cast<int64_t>(actual->values.size()) / actual->columns;
        reporter_.ExpectClose(label_, name,
                              name == "logits_last"
                                  ? actual->values
                                  : PickRows(actual->values, actual->columns, RowsOf(name, rows)),
                              tensor.Floats());
      } else if (absl::StartsWith(name, "block_indices_layer")) {
        CheckBlocks(recorder, std::stoi(name.substr(strlen("block_indices_layer"))), tensor);
      }
    }
    CheckFinalNorm(recorder);
  }

  // Features of all visuals of one kind in order, or of the rows that the golden keeps.
  void CheckFeatures(const char* tensor, const char* row_numbers, bool image) {
    const GoldenTensor* golden = golden_.Find(tensor);
    if (golden == nullptr) return;
    std::vector<float> rows;
    int64_t columns = 0;
    for (int visual = 0; visual < num_visuals(); ++visual) {
      if (IsImage(visual) != image) continue;
      const VisualFeatures* features = executor_.Features(SequenceId{1}, visual);
      if (features == nullptr) return reporter_.Record(false, label_, tensor, "no features");
      columns = features->rows.cols();
      const std::vector<float> values = HostFloats(executor_.backend(), features->rows);
      rows.insert(rows.end(), values.begin(), values.end());
    }
    if (const GoldenTensor* numbers = golden_.Find(row_numbers)) {
      rows = PickRows(rows, columns, numbers->Integers());
    }
    reporter_.ExpectClose(label_, tensor, rows, golden->Floats());
  }

  int num_visuals() const {
    return static_cast<int>(GridsOf(golden_, "video_grid_thw").size() +
                            GridsOf(golden_, "image_grid_thw").size());
  }

  // Kind of the visual at one place of the prompt.
  bool IsImage(int visual) const {
    const SpecialTokens& tokens = executor_.model().config().tokens;
    const std::vector<int64_t> ids = golden_.Find("input_ids")->Integers();
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool pad = ids[i] == tokens.image_pad || ids[i] == tokens.video_pad;
      if (pad && (i == 0 || ids[i - 1] != ids[i]) && visual-- == 0) {
        return ids[i] == tokens.image_pad;
      }
    }
    return false;
  }

  void CheckFinalNorm(const Recorder& recorder) {
    const Recorder::Matrix* hidden =
        recorder.Find(absl::StrCat("hidden_layer", executor_.info().num_layers - 1));
    if (hidden == nullptr) return;
    const int64_t rows = static_cast<int64_t>(hidden->values.size()) / hidden->columns;
    Backend& backend = executor_.backend();
    absl::StatusOr<DeviceBuffer> buffer = backend.device().Allocate(
        static_cast<int64_t>(hidden->values.size() * sizeof(float)), "final norm");
    if (!reporter_.ExpectOk(label_, "final_norm", buffer.status())) return;
    const TensorView matrix = MatrixView(buffer->data(), DType::kF32, rows, hidden->columns);
    backend.CopyHostRows(
        MatrixView(const_cast<float*>(hidden->values.data()), DType::kF32, rows, hidden->columns),
        {}, matrix);
    executor_.model().language().FinalNorm(matrix, matrix);
    const std::vector<float> normed = HostFloats(backend, matrix);
    if (const GoldenTensor* all = golden_.Find("final_norm")) {
      reporter_.ExpectClose(label_, "final_norm", normed, all->Floats());
    }
    if (const GoldenTensor* last = golden_.Find("final_norm_last")) {
      reporter_.ExpectClose(label_, "final_norm_last",
                            PickRows(normed, hidden->columns, {rows - 1}), last->Floats());
    }
  }

  // Sets of chosen blocks where the gap is clear of rounding.
  void CheckBlocks(const Recorder& recorder, int layer, const GoldenTensor& golden) {
    const std::string name = absl::StrCat("block_indices_layer", layer);
    const std::vector<int32_t>* actual = recorder.Blocks(layer);
    const GoldenTensor* gaps = golden_.Find(absl::StrCat("select_gap_layer", layer));
    if (actual == nullptr || gaps == nullptr) {
      return reporter_.Record(false, label_, name, "no choices or no gaps");
    }
    const std::vector<int64_t> expected = golden.Integers();
    const std::vector<float> gap = gaps->Floats();
    const int64_t heads = golden.shape[1], places = golden.shape[2];
    const std::vector<int64_t> rows = RowsOf(name, golden.shape[0]);
    const std::vector<int64_t> vision = golden_.Find("vision_mask") != nullptr
                                            ? golden_.Find("vision_mask")->Integers()
                                            : std::vector<int64_t>();
    int64_t compared = 0, wrong = 0, unclear = 0;
    for (size_t r = 0; r < rows.size(); ++r) {
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t at = static_cast<int64_t>(r) * heads + head;
        if (gap[static_cast<size_t>(at)] < kClearGap) {
          ++unclear;
          continue;
        }
        std::vector<int64_t> want(expected.begin() + at * places,
                                  expected.begin() + (at + 1) * places);
        const int32_t* mine = actual->data() + (rows[r] * heads + head) * places;
        std::vector<int64_t> have(mine, mine + places);
        std::sort(want.begin(), want.end());
        std::sort(have.begin(), have.end());
        ++compared;
        wrong += want != have;
      }
    }
    reporter_.Record(wrong == 0 && compared > 0, label_, name,
                     absl::StrCat(compared, " choices compared, ", wrong, " differ, ", unclear,
                                  " too close to compare"));
  }

  const GoldenCase& golden_;
  const std::string label_;
  ModelExecutor& executor_;
  Reporter& reporter_;
  bool checked_ = false;
};

// "models/a (same weights: models/b)" names both folders.
std::vector<std::string> ModelsOf(const GoldenCase& golden) {
  std::vector<std::string> models;
  for (absl::string_view part : absl::StrSplit(golden.json.value("model", ""),
                                               absl::ByAnyChar(" ():,"), absl::SkipEmpty())) {
    if (part.find('/') != absl::string_view::npos) models.emplace_back(part);
  }
  return models;
}

// A golden's prompt on the GPU in bf16 beside the CPU in fp32.
void CheckInBf16(const GoldenCase& golden, const std::string& label,
                 const std::vector<GoldenCase>& siblings, const std::string& folder,
                 Reporter& reporter) {
  auto cpu = MakeExecutor(folder, DeviceKind::kCpu, ComputeType::kF32);
  auto cpu_bf16 = MakeExecutor(folder, DeviceKind::kCpu, ComputeType::kBF16);
  auto gpu = MakeExecutor(folder, DeviceKind::kCuda, ComputeType::kBF16);
  if (!reporter.ExpectOk(label, "cpu model", cpu.status())) return;
  if (!reporter.ExpectOk(label, "cpu model in bf16", cpu_bf16.status())) return;
  if (!reporter.ExpectOk(label, "bf16 model", gpu.status())) return;
  const GoldenTensor* ids = golden.Find("greedy_ids_rp1.00");
  const SpecialTokens& tokens = (*cpu)->model().config().tokens;
  auto spec = SpecOfCase(golden, siblings, {tokens.image_pad, tokens.video_pad});
  if (ids == nullptr || !reporter.ExpectOk(label, "inputs", spec.status())) return;
  spec->sampling.max_output_tokens = static_cast<int>(ids->num_elements());
  spec->sampling.suppress_eos = golden.json.contains("eos_disabled");
  spec->attention.semantics = (*cpu)->info().semantics;
  if (golden.json.contains("block_counts")) {
    spec->attention.selected_blocks = golden.json["block_counts"].get<int>();
    spec->attention.window_tokens = golden.json["window_size"].get<int>();
  }
  // Patches are taken once: every run gets its own.
  const auto trace = [&](ModelExecutor& executor) -> absl::StatusOr<AnswerTrace> {
    auto again = SpecOfCase(golden, siblings, {tokens.image_pad, tokens.video_pad});
    if (!again.ok()) return again.status();
    spec->visuals = std::move(again->visuals);
    return TraceAnswer(executor, *spec);
  };
  const absl::StatusOr<AnswerTrace> want = trace(**cpu), have = trace(**gpu);
  const absl::StatusOr<AnswerTrace> rounded = trace(**cpu_bf16);
  if (!reporter.ExpectOk(label, "cpu", want.status())) return;
  if (!reporter.ExpectOk(label, "bf16", have.status())) return;
  if (!reporter.ExpectOk(label, "cpu in bf16", rounded.status())) return;
  CompareTraces(label + " bf16", *want, *have, &*rounded, reporter);
}

}  // namespace

void CheckModel(const GoldenOptions& options, Reporter& reporter) {
  std::vector<GoldenCase> cases;
  for (const std::string& path : FindFiles(options.dir, ".json")) {
    absl::StatusOr<GoldenCase> golden = ReadGoldenCase(path);
    if (!golden.ok() || golden->Find("logits_last") == nullptr) continue;  // another kind
    cases.push_back(*std::move(golden));
  }
  std::map<std::string, std::unique_ptr<ModelExecutor>> executors;
  for (const GoldenCase& golden : cases) {
    for (const std::string& folder : ModelsOf(golden)) {
      const size_t slash = folder.rfind('/');
      const std::string label = absl::StrCat(golden.name, "@", folder.substr(slash + 1));
      std::unique_ptr<ModelExecutor>& executor = executors[folder];
      if (executor == nullptr) {
        absl::StatusOr<std::unique_ptr<ModelExecutor>> created =
            MakeExecutor(JoinPath(options.models, folder),
                         options.cuda ? DeviceKind::kCuda : DeviceKind::kCpu, ComputeType::kF32);
        if (!reporter.ExpectOk(label, "model", created.status())) continue;
        executor = *std::move(created);
      }
      CaseRun(golden, label, *executor, reporter).Check(cases);
      if (options.cuda) {
        CheckInBf16(golden, label, cases, JoinPath(options.models, folder), reporter);
      }
    }
  }
}

}  // namespace videonsa::golden
