#include "runtime/executor/cpu_executor.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

// Rows whose logits exist at once.
constexpr int64_t kLogitRows = 16;

DType Resolve(ComputeType type) {
  if (type == ComputeType::kF32) return DType::kF32;
  if (type == ComputeType::kBF16) return DType::kBF16;
  return CpuBackend::AutoComputeType();
}

absl::Status OutOfRange(const char* option, int64_t value, int64_t min, int64_t max) {
  return InvalidField(option, absl::StrCat(option, " ", value, " outside [", min, ", ", max, "]"));
}

absl::Status CheckOptions(const CpuExecutorOptions& options) {
  constexpr int64_t kMaxBytes = int64_t{1} << 46;
  if (options.threads < 0 || options.threads > 1024) {
    return OutOfRange("threads", options.threads, 0, 1024);
  }
  if (options.max_rows < 1 || options.max_rows > 1 << 16) {
    return OutOfRange("max_rows", options.max_rows, 1, 1 << 16);
  }
  if (options.num_pages < 0) return OutOfRange("num_pages", options.num_pages, 0, INT32_MAX);
  if (options.kv_bytes < 1 || options.kv_bytes > kMaxBytes) {
    return OutOfRange("kv_bytes", options.kv_bytes, 1, kMaxBytes);
  }
  if (options.max_context_tokens < 0) {
    return OutOfRange("max_context_tokens", options.max_context_tokens, 0, INT32_MAX);
  }
  if (options.compute_type == ComputeType::kBF16 && CpuBackend::AutoComputeType() != DType::kBF16) {
    return InvalidField("compute_type", "compute_type bf16 needs a CPU with AVX512_BF16");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuExecutor>> CpuExecutor::Create(
    const CpuExecutorOptions& options) {
  VNSA_RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<CpuExecutor> executor(new CpuExecutor());
  VNSA_RETURN_IF_ERROR(executor->Setup(options));
  return executor;
}

absl::Status CpuExecutor::Setup(const CpuExecutorOptions& options) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  backend_ = std::make_unique<CpuBackend>(Resolve(options.compute_type),
                                          options.threads == 0 ? cores : options.threads);
  VNSA_ASSIGN_OR_RETURN(
      model_, Model::Load({options.model_dir, options.dummy_weights, options.dummy_config_path},
                          *backend_));
  const ModelConfig& config = model_->config();
  if (options.attention) VNSA_RETURN_IF_ERROR(CheckSemantics(*options.attention, config));
  VNSA_RETURN_IF_ERROR(FillInfo(options));
  const TextConfig& text = config.text;
  const AttentionShape& shape = model_->language().shape();
  VNSA_ASSIGN_OR_RETURN(KvStorage kv,
                        KvStorage::Create(backend_->device(), shape, backend_->kv_type(),
                                          text.num_layers, info_.num_pages));
  kv_ = std::make_unique<KvStorage>(std::move(kv));
  max_rows_ = options.max_rows;
  VNSA_RETURN_IF_ERROR(model_->language().Reserve(max_rows_));
  VNSA_RETURN_IF_ERROR(
      backend_->ReserveAttention({shape, AttentionSemantics::kDense, 0,
                                  static_cast<int>(info_.max_context_tokens), max_rows_}));
  const int half = text.head_dim / 2;
  VNSA_ASSIGN_OR_RETURN(DeviceBuffer buffer,
                        backend_->device().Allocate(
                            Workspace::MatrixBytes(DType::kF32, max_rows_, text.hidden_size) +
                                2 * Workspace::MatrixBytes(DType::kF32, max_rows_, half) +
                                Workspace::MatrixBytes(DType::kF32, kLogitRows, text.vocab_size),
                            "step workspace"));
  workspace_ = Workspace(std::move(buffer));
  hidden_ = workspace_.Matrix(DType::kF32, max_rows_, text.hidden_size);
  angles_.cos = workspace_.Matrix(DType::kF32, max_rows_, half);
  angles_.sin = workspace_.Matrix(DType::kF32, max_rows_, half);
  logits_ = workspace_.Matrix(DType::kF32, kLogitRows, text.vocab_size);
  feature_cache_ = std::make_unique<FeatureCache>(options.feature_cache_bytes);
  sampler_ = std::make_unique<Sampler>(text.vocab_size, config.tokens.stop);
  return absl::OkStatus();
}

absl::Status CpuExecutor::FillInfo(const CpuExecutorOptions& options) {
  const ModelConfig& config = model_->config();
  const TextConfig& text = config.text;
  const AttentionShape& shape = model_->language().shape();

  info_.page_bytes = KvStorage::PageBytes(shape, backend_->kv_type(), text.num_layers);
  info_.num_pages = options.num_pages > 0
                        ? options.num_pages
                        : static_cast<int>(std::min<int64_t>(options.kv_bytes / info_.page_bytes,
                                                             INT32_MAX / kPageTokens));
  if (info_.num_pages < 1) {
    return InvalidField("kv_bytes", absl::StrCat("kv_bytes ", options.kv_bytes,
                                                 " below one page of ", info_.page_bytes));
  }
  info_.max_context_tokens =
      std::min<int64_t>(text.max_positions, int64_t{info_.num_pages} * kPageTokens);
  if (options.max_context_tokens > 0) {
    info_.max_context_tokens = std::min(info_.max_context_tokens, options.max_context_tokens);
  }
  info_.num_layers = text.num_layers;
  info_.num_q_heads = text.num_q_heads;
  info_.num_kv_heads = text.num_kv_heads;
  info_.head_dim = text.head_dim;
  info_.hidden_size = text.hidden_size;
  info_.vocab_size = text.vocab_size;
  info_.semantics = options.attention.value_or(config.attention.semantics);
  const bool sparse = info_.semantics != AttentionSemantics::kDense;
  info_.selected_blocks = sparse ? config.attention.selected_blocks : 0;
  info_.window_tokens = sparse ? config.attention.window_tokens : 0;
  info_.has_gates = config.attention.has_gates();
  info_.can_split_vision = true;
  info_.hidden_row_bytes =
      static_cast<int64_t>(sizeof(float)) *
      (text.hidden_size + 2 * shape.q_size() + 3 * text.num_q_heads + text.head_dim);
  return absl::OkStatus();
}

SequenceState& CpuExecutor::Find(SequenceId id) {
  const auto found = sequences_.find(id);
  VNSA_CHECK(found != sequences_.end()) << "unknown sequence";
  return *found->second;
}

absl::Status CpuExecutor::AddSequence(SequenceSpec spec) {
  VNSA_CHECK(sequences_.count(spec.id) == 0) << "sequence added twice";
  VNSA_RETURN_IF_ERROR(CheckSequence(spec, model_->config(), info_));
  std::unique_ptr<SequenceState> state = MakeSequenceState(std::move(spec), model_->config());
  VNSA_RETURN_IF_ERROR(ReserveSequence(*state));
  const SequenceId id = state->spec.id;
  sequences_.emplace(id, std::move(state));
  return absl::OkStatus();
}

absl::Status CpuExecutor::ReserveSequence(SequenceState& state) {
  const TextConfig& text = model_->config().text;
  for (size_t i = 0; i < state.features.size(); ++i) {
    const PatchGrid& grid = state.spec.visuals[i]->grid;
    if (!state.spec.visual_keys.empty()) {
      state.features[i] = feature_cache_->Find(state.spec.visual_keys[i], grid);
      if (state.features[i] != nullptr) continue;
    }
    if (static_cast<int64_t>(state.spec.visuals[i]->rows.size()) !=
        grid.num_patches() * kPatchDim) {
      return MakeError(absl::StatusCode::kInvalidArgument, "SEQUENCE_INVALID",
                       absl::StrCat("sequence: ", state.spec.visuals[i]->rows.size(),
                                    " patch values for ", grid.num_patches(), " patches"));
    }
    VNSA_RETURN_IF_ERROR(model_->vision().Reserve(grid.h, grid.w));
    auto features = std::make_shared<VisualFeatures>();
    features->grid = grid;
    const DType type = backend_->activation_type();
    const int64_t bytes = grid.num_tokens() * text.hidden_size * static_cast<int64_t>(SizeOf(type));
    VNSA_ASSIGN_OR_RETURN(features->buffer, backend_->device().Allocate(bytes, "visual features"));
    features->rows = MatrixView(features->buffer.data(), type, grid.num_tokens(), text.hidden_size);
    state.features[i] = std::move(features);
  }
  const AttentionShape& shape = model_->language().shape();
  const AttentionSettings& attention = state.spec.attention;
  VNSA_RETURN_IF_ERROR(backend_->ReserveAttention(
      {shape, attention.semantics, attention.selected_blocks, state.prompt_length(), 1}));
  if (!NeedsWholePrompt(attention.semantics)) return absl::OkStatus();
  const int64_t rows = state.prompt_length();
  const int64_t widths[] = {text.hidden_size,     shape.q_size(),    shape.q_size(),
                            3 * text.num_q_heads, text.head_dim / 2, text.head_dim / 2};
  int64_t bytes = 0;
  for (int64_t width : widths) bytes += Workspace::MatrixBytes(DType::kF32, rows, width);
  state.whole = std::make_unique<WholePromptState>();
  VNSA_ASSIGN_OR_RETURN(state.whole->buffer,
                        backend_->device().Allocate(bytes, "hidden states of a prompt"));
  char* at = static_cast<char*>(state.whole->buffer.data());
  LanguageModel::WholePrompt& views = state.whole->views;
  TensorView* const targets[] = {&views.hidden, &views.q,         &views.attended,
                                 &views.gates,  &views.table.cos, &views.table.sin};
  for (size_t i = 0; i < 6; ++i) {
    *targets[i] = MatrixView(at, DType::kF32, rows, widths[i]);
    at += Workspace::MatrixBytes(DType::kF32, rows, widths[i]);
  }
  return absl::OkStatus();
}

void CpuExecutor::ReleaseSequence(SequenceId sequence) { sequences_.erase(sequence); }

AttentionAccount CpuExecutor::Account(SequenceId sequence) const {
  const auto found = sequences_.find(sequence);
  VNSA_CHECK(found != sequences_.end()) << "unknown sequence";
  return AccountOf(*found->second, info_.num_q_heads);
}

void CpuExecutor::Observe(SequenceId sequence, ForwardObserver* observer) {
  Find(sequence).context.observer = observer;
}

const VisualFeatures* CpuExecutor::Features(SequenceId sequence, int visual_idx) const {
  const auto found = sequences_.find(sequence);
  VNSA_CHECK(found != sequences_.end()) << "unknown sequence";
  return found->second->features[static_cast<size_t>(visual_idx)].get();
}

absl::StatusOr<StepResult> CpuExecutor::Run(const StepPlan& plan) {
  StepResult result;
  result.step = plan.step;
  const absl::Time begin = absl::Now();
  for (const VisionSlice& slice : plan.vision) {
    if (!RunVision(slice, result)) result.skipped.push_back(slice.sequence);
  }
  const absl::Time vision_end = absl::Now();
  for (const PrefillSlice& slice : plan.prefill) {
    if (!RunPrefill(slice, result)) result.skipped.push_back(slice.sequence);
  }
  const absl::Time prefill_end = absl::Now();
  RunDecode(plan.decode, result);
  result.vision_time = vision_end - begin;
  result.prefill_time = prefill_end - vision_end;
  result.decode_time = absl::Now() - prefill_end;
  return result;
}

}  // namespace videonsa
