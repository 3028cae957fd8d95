#include "runtime/executor/model_executor.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/ops/backends.h"
#include "runtime/telemetry/log.h"

namespace videonsa {
namespace {

constexpr int64_t kLogitRows = LanguageModel::kMaxLogitRows;
// Rows of one decode pass.
constexpr int kMaxDecodeRows = 256;
constexpr absl::Duration kProgressPeriod = absl::Seconds(3);
// Left free beside KV pages that take what is there: workspaces of vision, features of visuals.
constexpr int64_t kSpareDeviceBytes = int64_t{2} << 30;

absl::Status OutOfRange(const char* option, int64_t value, int64_t min, int64_t max) {
  return InvalidField(option, absl::StrCat(option, " ", value, " outside [", min, ", ", max, "]"));
}

absl::Status CheckOptions(const ExecutorOptions& options) {
  constexpr int64_t kMaxBytes = int64_t{1} << 46;
  if (options.threads < 0 || options.threads > 1024) {
    return OutOfRange("threads", options.threads, 0, 1024);
  }
  if (options.max_rows < 1 || options.max_rows > 1 << 16) {
    return OutOfRange("max_rows", options.max_rows, 1, 1 << 16);
  }
  if (options.num_pages < 0) return OutOfRange("num_pages", options.num_pages, 0, INT32_MAX);
  if (options.kv_bytes < (options.device == DeviceKind::kCpu ? 1 : 0) ||
      options.kv_bytes > kMaxBytes) {
    return OutOfRange("kv_bytes", options.kv_bytes, 0, kMaxBytes);
  }
  if (options.max_context_tokens < 0) {
    return OutOfRange("max_context_tokens", options.max_context_tokens, 0, INT32_MAX);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const ExecutorOptions& options) {
  std::optional<DType> type;
  if (options.compute_type == ComputeType::kF32) type = DType::kF32;
  if (options.compute_type == ComputeType::kBF16) type = DType::kBF16;
  if (options.device == DeviceKind::kCuda) return CreateCudaBackend(options.device_ordinal, type);
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return CreateCpuBackend(options.threads == 0 ? cores : options.threads, type);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelExecutor>> ModelExecutor::Create(const ExecutorOptions& options,
                                                                     const ModelShard& shard) {
  VNSA_RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<ModelExecutor> executor(new ModelExecutor());
  VNSA_RETURN_IF_ERROR(executor->Setup(options, shard));
  return executor;
}

absl::Status ModelExecutor::Setup(const ExecutorOptions& options, const ModelShard& shard) {
  VNSA_ASSIGN_OR_RETURN(backend_, MakeBackend(options));
  if (shard.collective != nullptr) shard.collective->Attach(backend_->device());
  if (options.batch_invariant) backend_->MakeBatchInvariant(kMaxDecodeRows);
  // A load that takes long says how far it is.
  const bool first_rank = shard.rank() == 0;
  const auto progress = [first_rank, last = absl::Now()](int done, int total) mutable {
    if (!first_rank || absl::Now() - last < kProgressPeriod) return;
    last = absl::Now();
    Log(LogLevel::kInfo, "loading weights", {{"layers_done", done}, {"layers", total}});
  };
  VNSA_ASSIGN_OR_RETURN(
      model_, Model::Load({options.model_dir, options.dummy_weights, options.dummy_config_path,
                           progress, shard, options.want_digest && first_rank},
                          *backend_));
  weight_bytes_ = backend_->device().UsedBytes();
  const ModelConfig& config = model_->config();
  if (options.attention) VNSA_RETURN_IF_ERROR(CheckSemantics(*options.attention, config));
  VNSA_RETURN_IF_ERROR(CheckShard(options.attention.value_or(config.attention.semantics)));
  VNSA_RETURN_IF_ERROR(FillInfo(options));
  // Pages that take what is free come after everything else.
  const bool take_free = options.num_pages == 0 && options.kv_bytes == 0;
  if (!take_free) VNSA_RETURN_IF_ERROR(SizePages(options));
  VNSA_RETURN_IF_ERROR(ReserveWorkspaces(options));
  if (take_free) VNSA_RETURN_IF_ERROR(SizePages(options));
  VNSA_ASSIGN_OR_RETURN(KvStorage kv,
                        KvStorage::Create(backend_->device(), model_->language().shape(),
                                          backend_->kv_type(), info_.num_layers, info_.num_pages));
  kv_ = std::make_unique<KvStorage>(std::move(kv));
  feature_cache_ = std::make_unique<FeatureCache>(options.feature_cache_bytes);
  sampler_ = std::make_unique<Sampler>(config.text.vocab_size, config.tokens.stop);
  return absl::OkStatus();
}

absl::Status ModelExecutor::ReserveWorkspaces(const ExecutorOptions& options) {
  const TextConfig& text = model_->config().text;
  max_rows_ = options.max_rows;
  VNSA_RETURN_IF_ERROR(model_->language().Reserve(max_rows_));
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
  decode_rows_ = std::min(max_rows_, kMaxDecodeRows);
  AttentionNeeds needs{model_->language().shape(),
                       AttentionSemantics::kDense,
                       0,
                       static_cast<int>(info_.max_context_tokens),
                       decode_rows_,
                       max_rows_};
  if (options.num_pages == 0 && options.kv_bytes == 0) {
    // Pages will take what is left: what prompts of the trained kind and the vision tower need
    // comes first.
    VNSA_RETURN_IF_ERROR(model_->vision().Reserve(2, 2));
    needs.semantics = info_.semantics;
    needs.selected_blocks = info_.selected_blocks;
  }
  return backend_->ReserveAttention(needs);
}

// Pages as asked for, or what is free beside the hidden states of two whole prompts.
absl::Status ModelExecutor::SizePages(const ExecutorOptions& options) {
  info_.page_bytes = KvStorage::PageBytes(model_->language().shape(), backend_->kv_type(),
                                          model_->config().text.num_layers);
  int64_t bytes = options.kv_bytes;
  if (bytes == 0) {
    const int prompts = NeedsWholePrompt(info_.semantics) ? 2 : 0;
    bytes = backend_->device().FreeBytes() - kSpareDeviceBytes - options.feature_cache_bytes -
            prompts * info_.max_context_tokens * info_.hidden_row_bytes;
  }
  info_.num_pages = options.num_pages > 0
                        ? options.num_pages
                        : static_cast<int>(std::clamp<int64_t>(bytes / info_.page_bytes, 0,
                                                               INT32_MAX / kPageTokens));
  if (info_.num_pages < 1 && options.kv_bytes == 0) {
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     absl::StrCat("no memory for KV pages: ", backend_->device().FreeBytes(),
                                  " bytes free beside weights and workspaces"));
  }
  if (info_.num_pages < 1) {
    return InvalidField("kv_bytes", absl::StrCat("kv_bytes ", options.kv_bytes,
                                                 " below one page of ", info_.page_bytes));
  }
  info_.max_context_tokens =
      std::min(info_.max_context_tokens, int64_t{info_.num_pages} * kPageTokens);
  const auto scratch = [&](int64_t tokens) {
    return backend_->AttentionScratchBytes({model_->language().shape(), info_.semantics,
                                            info_.selected_blocks, static_cast<int>(tokens), 1});
  };
  const int64_t most = info_.max_context_tokens;
  info_.scratch_row_bytes = (scratch(most) - scratch(1) + most - 1) / most;
  return absl::OkStatus();
}

absl::Status ModelExecutor::FillInfo(const ExecutorOptions& options) {
  const ModelConfig& config = model_->config();
  const TextConfig& text = config.text;
  const AttentionShape& shape = model_->language().shape();
  info_.max_context_tokens = text.max_positions;
  if (options.max_context_tokens > 0) {
    info_.max_context_tokens = std::min(info_.max_context_tokens, options.max_context_tokens);
  }
  info_.num_layers = text.num_layers;
  info_.gpu = options.device == DeviceKind::kCuda ? options.device_ordinal : -1;
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
  info_.feature_row_bytes =
      text.hidden_size * static_cast<int64_t>(SizeOf(backend_->activation_type()));
  info_.hidden_row_bytes =
      static_cast<int64_t>(sizeof(float)) *
          (text.hidden_size + 3 * text.num_q_heads + text.head_dim) +
      static_cast<int64_t>(SizeOf(backend_->attention_type())) * 2 * shape.q_size();
  return absl::OkStatus();
}

SequenceState& ModelExecutor::Find(SequenceId id) {
  const auto found = sequences_.find(id);
  VNSA_CHECK(found != sequences_.end()) << "unknown sequence";
  return *found->second;
}

// A query head of released_nsa attends to keys of several KV heads.
absl::Status ModelExecutor::CheckShard(AttentionSemantics semantics) const {
  const ModelShard& shard = model_->shard();
  if (!shard.heads_divided() || semantics != AttentionSemantics::kReleasedNsa) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument, "ATTENTION_UNSUPPORTED",
      absl::StrCat("attention released_nsa: the KV heads are divided among ", shard.num_ranks(),
                   " ranks; it needs a server started with this attention"));
}

absl::Status ModelExecutor::AddSequence(SequenceSpec spec) {
  VNSA_CHECK(sequences_.count(spec.id) == 0) << "sequence added twice";
  VNSA_RETURN_IF_ERROR(CheckSequence(spec, model_->config(), info_));
  VNSA_RETURN_IF_ERROR(CheckShard(spec.attention.semantics));
  if (!backend_->Supports(spec.attention.semantics)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "ATTENTION_UNSUPPORTED",
                     absl::StrCat("attention ", SemanticsName(spec.attention.semantics),
                                  ": this worker's device does not have it"));
  }
  std::unique_ptr<SequenceState> state = MakeSequenceState(std::move(spec), model_->config());
  VNSA_RETURN_IF_ERROR(ReserveSequence(*state));
  const SequenceId id = state->spec.id;
  sequences_.emplace(id, std::move(state));
  return absl::OkStatus();
}

absl::Status ModelExecutor::ReserveSequence(SequenceState& state) {
  const TextConfig& text = model_->config().text;
  std::vector<bool> wanted(state.features.size(), false);
  for (const VisionSpan& span : state.spec.vision_spans) {
    wanted[static_cast<size_t>(span.visual_idx)] =
        span.token_begin + span.num_tokens > state.spec.cached_tokens;
  }
  for (size_t i = 0; i < state.features.size(); ++i) {
    PatchSource& source = *state.spec.visuals[i];
    const PatchGrid& grid = source.grid();
    if (wanted[i] && !state.spec.visual_keys.empty()) {
      state.features[i] = feature_cache_->Find(state.spec.visual_keys[i], grid);
    }
    if (!wanted[i] || state.features[i] != nullptr) {
      source.Close();
      continue;
    }
    VNSA_RETURN_IF_ERROR(source.state().status);
    VNSA_RETURN_IF_ERROR(model_->vision().Reserve(grid.h, grid.w));
    auto features = std::make_shared<VisualFeatures>();
    features->grid = grid;
    const DType type = backend_->activation_type();
    const int64_t bytes = grid.num_tokens() * text.hidden_size * static_cast<int64_t>(SizeOf(type));
    VNSA_ASSIGN_OR_RETURN(features->buffer, backend_->device().Allocate(bytes, "visual features"));
    features->rows = MatrixView(features->buffer.data(), type, grid.num_tokens(), text.hidden_size);
    state.features[i] = std::move(features);
    source.Begin();
  }
  const AttentionShape& shape = model_->language().shape();
  const AttentionSettings& attention = state.spec.attention;
  VNSA_RETURN_IF_ERROR(backend_->ReserveAttention({shape, attention.semantics,
                                                   attention.selected_blocks, state.prompt_length(),
                                                   1, std::min(max_rows_, state.prompt_length())}));
  if (!NeedsWholePrompt(attention.semantics)) return absl::OkStatus();
  const int64_t rows = state.prompt_length();
  const int64_t widths[] = {text.hidden_size,     shape.q_size(),    shape.q_size(),
                            3 * text.num_q_heads, text.head_dim / 2, text.head_dim / 2};
  const DType attention_type = backend_->attention_type();
  const DType types[] = {DType::kF32, attention_type, attention_type,
                         DType::kF32, DType::kF32,    DType::kF32};
  int64_t bytes = 0;
  for (size_t i = 0; i < 6; ++i) bytes += Workspace::MatrixBytes(types[i], rows, widths[i]);
  state.whole = std::make_unique<WholePromptState>();
  VNSA_ASSIGN_OR_RETURN(state.whole->buffer,
                        backend_->device().Allocate(bytes, "hidden states of a prompt"));
  char* at = static_cast<char*>(state.whole->buffer.data());
  LanguageModel::WholePrompt& views = state.whole->views;
  TensorView* const targets[] = {&views.hidden, &views.q,         &views.attended,
                                 &views.gates,  &views.table.cos, &views.table.sin};
  for (size_t i = 0; i < 6; ++i) {
    *targets[i] = MatrixView(at, types[i], rows, widths[i]);
    at += Workspace::MatrixBytes(types[i], rows, widths[i]);
  }
  return absl::OkStatus();
}

void ModelExecutor::ReleaseSequence(SequenceId sequence) { sequences_.erase(sequence); }

AttentionAccount ModelExecutor::Account(SequenceId sequence) const {
  const auto found = sequences_.find(sequence);
  VNSA_CHECK(found != sequences_.end()) << "unknown sequence";
  return AccountOf(*found->second, model_->language().shape().num_q_heads);
}

void ModelExecutor::Observe(SequenceId sequence, ForwardObserver* observer) {
  Find(sequence).context.observer = observer;
}

const VisualFeatures* ModelExecutor::Features(SequenceId sequence, int visual_idx) const {
  const auto found = sequences_.find(sequence);
  VNSA_CHECK(found != sequences_.end()) << "unknown sequence";
  return found->second->features[static_cast<size_t>(visual_idx)].get();
}

absl::StatusOr<StepResult> ModelExecutor::Run(const StepPlan& plan) {
  StepResult result;
  result.step = plan.step;
  pending_.clear();
  backend_->BeginStep();
  backend_->Mark();
  for (const VisionSlice& slice : plan.vision) {
    if (!RunVision(slice, result)) result.skipped.push_back(slice.sequence);
  }
  backend_->Mark();
  for (const PrefillSlice& slice : plan.prefill) {
    if (!RunPrefill(slice)) result.skipped.push_back(slice.sequence);
  }
  backend_->Mark();
  RunDecode(plan, result);
  backend_->Mark();
  VNSA_RETURN_IF_ERROR(backend_->EndStep());
  if (Collective* const collective = model_->shard().collective; collective != nullptr) {
    VNSA_RETURN_IF_ERROR(collective->status());
  }
  TakeTokens(result);
  result.vision_time = backend_->Between(0, 1);
  result.prefill_time = backend_->Between(1, 2);
  result.decode_time = backend_->Between(2, 3);
  result.device = UseOfDevice();
  return result;
}

DeviceUse ModelExecutor::UseOfDevice() {
  DeviceUse use;
  if (info_.gpu < 0) return use;
  use.weight_bytes = weight_bytes_;
  use.kv_bytes = int64_t{info_.num_pages} * info_.page_bytes;
  use.other_bytes = backend_->device().UsedBytes() - use.weight_bytes - use.kv_bytes;
  const Backend::DecodeStarts starts = backend_->TakeDecodeStarts();
  use.decode_replays = starts.replayed;
  use.decode_launches = starts.eager;
  return use;
}

}  // namespace videonsa
