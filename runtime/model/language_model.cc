#include "runtime/model/language_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

// Columns [begin, begin + count) of a matrix.
TensorView Columns(const TensorView& matrix, int64_t begin, int64_t count) {
  TensorView view = matrix;
  view.data = static_cast<char*>(matrix.data) + static_cast<size_t>(begin) * SizeOf(matrix.dtype);
  view.dims[1] = count;
  return view;
}

bool IsNsa(AttentionSemantics semantics) {
  return semantics == AttentionSemantics::kCausalNsa ||
         semantics == AttentionSemantics::kReleasedNsa;
}

}  // namespace

LanguageModel::LanguageModel(const ModelConfig& config, const ModelShard& shard,
                             const ModelWeights& weights, Backend& backend)
    : config_(config),
      shard_(shard),
      weights_(weights),
      backend_(backend),
      shape_{static_cast<int>(shard.HeadPart(config.text.num_q_heads).size()),
             static_cast<int>(shard.HeadPart(config.text.num_kv_heads).size()),
             config.text.head_dim},
      mlp_size_(shard.Part(config.text.intermediate_size).size()) {
  VNSA_CHECK(!shard.heads_divided() || config.text.num_kv_heads % shard.num_ranks() == 0)
      << config.text.num_kv_heads << " KV heads for " << shard.num_ranks() << " ranks";
  const int half = shape_.head_dim / 2;
  for (int axis = 0; axis < 3; ++axis) {
    axes_.insert(axes_.end(), static_cast<size_t>(config.text.mrope_section[axis]), axis);
  }
  for (int j = 0; j < half; ++j) {
    frequencies_.push_back(
        1.0f / std::pow(config.text.rope_theta,
                        static_cast<float>(2 * j) / static_cast<float>(shape_.head_dim)));
  }
}

absl::Status LanguageModel::Reserve(int max_rows) {
  if (max_rows <= max_rows_) return absl::OkStatus();
  const DType type = backend_.activation_type();
  const DType attention_type = backend_.attention_type();
  const int64_t hidden = hidden_size();
  const int64_t layer = 2 * Workspace::MatrixBytes(type, max_rows, hidden) +
                        Workspace::MatrixBytes(attention_type, max_rows, qkv_size()) +
                        Workspace::MatrixBytes(attention_type, max_rows, shape_.q_size()) +
                        Workspace::MatrixBytes(type, max_rows, shape_.q_size()) +
                        Workspace::MatrixBytes(DType::kF32, max_rows, num_gates()) +
                        Workspace::MatrixBytes(type, max_rows, mlp_size_);
  const int64_t logits = Workspace::MatrixBytes(type, kMaxLogitRows, hidden) +
                         Workspace::MatrixBytes(DType::kF32, vocab_size(), kMaxLogitRows);
  const int64_t bytes = shard_.divided() ? std::max(layer, logits) : layer;
  VNSA_RETURN_IF_ERROR(backend_.ReserveSwiGlu(max_rows, mlp_size_));
  workspace_ = Workspace();
  VNSA_ASSIGN_OR_RETURN(DeviceBuffer buffer, backend_.device().Allocate(bytes, "workspace"));
  workspace_ = Workspace(std::move(buffer));
  max_rows_ = max_rows;
  return absl::OkStatus();
}

void LanguageModel::Embed(absl::Span<const int32_t> ids, const TensorView& out) {
  backend_.Embed(ids, *weights_.embedding, out);
}

void LanguageModel::RopeAngles(const int32_t* const positions[3], const RopeTable& table) {
  backend_.RopeAngles(
      {{positions[0], positions[1], positions[2]}, table.cos.rows(), frequencies_, axes_}, table);
}

TensorView LanguageModel::QueryPart(const TensorView& qkv) const {
  return Columns(qkv, 0, shape_.q_size());
}
TensorView LanguageModel::KeyPart(const TensorView& qkv) const {
  return Columns(qkv, shape_.q_size(), shape_.kv_size());
}
TensorView LanguageModel::ValuePart(const TensorView& qkv) const {
  return Columns(qkv, shape_.q_size() + shape_.kv_size(), shape_.kv_size());
}

void LanguageModel::Project(const DecoderLayerWeights& w, const TensorView& hidden,
                            const RopeTable& table, const TensorView& normed,
                            const TensorView& qkv) {
  backend_.RmsNorm(hidden, w.input_norm, config_.text.rms_norm_eps, normed);
  backend_.Linear(normed, *w.qkv, qkv);
  backend_.Rotate(qkv, shape_.num_q_heads + shape_.num_kv_heads, shape_.head_dim, table, {});
}

void LanguageModel::BranchGates(const DecoderLayerWeights& w, const TensorView& normed,
                                const uint8_t* is_vision, const TensorView& gates) {
  // Vision rows come in runs; text rows have no gates.
  const int64_t rows = normed.rows();
  for (int64_t begin = 0; begin < rows;) {
    if (is_vision[begin] == 0) {
      ++begin;
      continue;
    }
    int64_t end = begin;
    while (end < rows && is_vision[end] != 0) ++end;
    const size_t used = workspace_.used();
    const TensorView inner = workspace_.Matrix(backend_.activation_type(), end - begin,
                                               w.branch_gate_in->out_features());
    const TensorView own = gates.Rows(begin, end - begin);
    backend_.LinearGelu(normed.Rows(begin, end - begin), *w.branch_gate_in, inner);
    backend_.Linear(inner, *w.branch_gate_out, own);
    if (shard_.heads_divided()) shard_.collective->AllReduceSum(own);
    workspace_.ReleaseTo(used);
    begin = end;
  }
}

TensorView LanguageModel::OwnGates(const TensorView& gates) const {
  const RankShare heads = shard_.HeadPart(config_.text.num_q_heads);
  return Columns(gates, 3 * heads.begin, 3 * heads.size());
}

// hidden += x w, where a rank has some of the columns of x: one adds its part to the residual,
// which all have, the others put theirs in its place, and the sum is the new residual.
void LanguageModel::AddToAll(const TensorView& x, const LinearWeights& w,
                             const TensorView& hidden) {
  if (shard_.rank() == 0) {
    backend_.LinearAdd(x, w, hidden);
  } else {
    backend_.Linear(x, w, hidden);
  }
  if (shard_.divided()) shard_.collective->AllReduceSum(hidden);
}

void LanguageModel::Finish(const DecoderLayerWeights& w, const TensorView& attended,
                           const TensorView& hidden) {
  const DType type = backend_.activation_type();
  const int64_t rows = hidden.rows();
  const size_t used = workspace_.used();
  TensorView operand = attended;
  if (attended.dtype != type) {
    operand = workspace_.Matrix(type, rows, shape_.q_size());
    backend_.CopyRows(attended, {}, operand);
  }
  if (shard_.heads_divided()) {
    AddToAll(operand, *w.o, hidden);
  } else {
    backend_.LinearAdd(operand, *w.o, hidden);
  }
  workspace_.ReleaseTo(used);
  const TensorView normed = workspace_.Matrix(type, rows, hidden_size());
  const TensorView inner = workspace_.Matrix(type, rows, mlp_size_);
  backend_.RmsNorm(hidden, w.post_attention_norm, config_.text.rms_norm_eps, normed);
  backend_.LinearSwiGlu(normed, *w.gate, *w.up, inner);
  AddToAll(inner, *w.down, hidden);
  workspace_.ReleaseTo(used);
}

int64_t LanguageModel::FirstFinished(int layer, const PrefillContext& context, int row_begin,
                                     int64_t rows) const {
  if (layer + 1 < num_layers() || context.observer != nullptr) return 0;
  return std::clamp<int64_t>(int64_t{context.output_begin} - row_begin, 0, rows);
}

PrefillAttentionArgs LanguageModel::AttentionArgs(int layer, const PrefillContext& context,
                                                  int row_begin, int rows) {
  PrefillAttentionArgs args;
  args.semantics = context.semantics;
  args.selected_blocks = context.selected_blocks;
  args.window_tokens = context.window_tokens;
  args.row_begin = row_begin;
  args.row_end = row_begin + rows;
  if (context.is_vision != nullptr) {
    args.is_vision = context.is_vision + row_begin;
    args.is_vision_uploaded = context.is_vision_uploaded + row_begin;
  }
  args.has_vision = args.is_vision != nullptr &&
                    std::find(args.is_vision, args.is_vision + rows, 1) != args.is_vision + rows;
  args.mass_begin = context.mass_begin;
  args.tally = &context.tallies[layer];
  if (context.observer != nullptr && IsNsa(context.semantics)) {
    const int width = ChosenBlocksPerRow(context.semantics, context.selected_blocks);
    const int64_t bytes =
        int64_t{rows} * shape_.num_kv_heads * width * static_cast<int64_t>(sizeof(int32_t));
    absl::StatusOr<DeviceBuffer> blocks = backend_.device().Allocate(bytes, "observed choices");
    VNSA_CHECK(blocks.ok()) << blocks.status();
    blocks_ = *std::move(blocks);
    backend_.device().Fill(blocks_.data(), 0xFF, bytes);  // -1: none
    args.blocks = static_cast<int32_t*>(blocks_.data());
  }
  return args;
}

TensorView LanguageModel::ChosenBlocks(const PrefillAttentionArgs& args) const {
  if (args.blocks == nullptr) return {};
  const int width = shape_.num_kv_heads * ChosenBlocksPerRow(args.semantics, args.selected_blocks);
  return MatrixView(args.blocks, DType::kI32, args.row_end - args.row_begin, width);
}

void LanguageModel::PrefillLayer(int layer, int row_begin, const TensorView& hidden,
                                 const RopeTable& table, const PagedKv& kv,
                                 const PrefillContext& context) {
  const DecoderLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const int64_t rows = hidden.rows();
  VNSA_CHECK_LE(rows, max_rows_);
  workspace_.Reset();
  const TensorView qkv = workspace_.Matrix(backend_.attention_type(), rows, qkv_size());
  const TensorView attended = workspace_.Matrix(backend_.attention_type(), rows, shape_.q_size());
  const TensorView gates = workspace_.Matrix(DType::kF32, rows, num_gates());
  const size_t used = workspace_.used();
  const TensorView normed = workspace_.Matrix(backend_.activation_type(), rows, hidden_size());
  Project(w, hidden, table, normed, qkv);
  backend_.AppendKv(kv, KeyPart(qkv), ValuePart(qkv), row_begin);
  PrefillAttentionArgs args = AttentionArgs(layer, context, row_begin, static_cast<int>(rows));
  if (IsNsa(args.semantics) && args.has_vision) {
    BranchGates(w, normed, args.is_vision, gates);
    args.gates = OwnGates(gates);
  }
  args.kv = kv;
  args.q = QueryPart(qkv);
  args.out = attended;
  if (context.observer != nullptr) {
    context.observer->OnQueries(layer, args.row_begin, args.q, kv);
  }
  backend_.PrefillAttention(args);
  workspace_.ReleaseTo(used);
  const int64_t first = FirstFinished(layer, context, row_begin, rows);
  if (first < rows) Finish(w, attended.Rows(first, rows - first), hidden.Rows(first, rows - first));
  if (context.observer != nullptr) {
    context.observer->OnAttention(layer, row_begin, attended, ChosenBlocks(args));
    context.observer->OnLayer(layer, row_begin, hidden);
  }
}

void LanguageModel::PrefillLayerWhole(int layer, const WholePrompt& prompt, const PagedKv& kv,
                                      const PrefillContext& context) {
  const DecoderLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const int64_t rows = prompt.hidden.rows();
  PrefillAttentionArgs args = AttentionArgs(layer, context, 0, static_cast<int>(rows));
  for (int64_t begin = 0; begin < rows; begin += max_rows_) {
    const int64_t count = std::min<int64_t>(max_rows_, rows - begin);
    workspace_.Reset();
    const TensorView qkv = workspace_.Matrix(backend_.attention_type(), count, qkv_size());
    const TensorView normed = workspace_.Matrix(backend_.activation_type(), count, hidden_size());
    const RopeTable table = {prompt.table.cos.Rows(begin, count),
                             prompt.table.sin.Rows(begin, count)};
    Project(w, prompt.hidden.Rows(begin, count), table, normed, qkv);
    backend_.AppendKv(kv, KeyPart(qkv), ValuePart(qkv), static_cast<int>(begin));
    backend_.CopyRows(QueryPart(qkv), {}, prompt.q.Rows(begin, count));
    if (IsNsa(args.semantics) && args.has_vision) {
      BranchGates(w, normed, args.is_vision + begin, prompt.gates.Rows(begin, count));
    }
  }
  args.kv = kv;
  args.q = prompt.q;
  args.out = prompt.attended;
  args.gates = OwnGates(prompt.gates);
  if (context.observer != nullptr) {
    context.observer->OnQueries(layer, args.row_begin, args.q, kv);
  }
  backend_.PrefillAttention(args);
  for (int64_t begin = FirstFinished(layer, context, 0, rows); begin < rows; begin += max_rows_) {
    const int64_t count = std::min<int64_t>(max_rows_, rows - begin);
    workspace_.Reset();
    Finish(w, prompt.attended.Rows(begin, count), prompt.hidden.Rows(begin, count));
  }
  if (context.observer != nullptr) {
    context.observer->OnAttention(layer, 0, prompt.attended, ChosenBlocks(args));
    context.observer->OnLayer(layer, 0, prompt.hidden);
  }
}

void LanguageModel::DecodeLayer(int layer, const TensorView& hidden, const RopeTable& table,
                                const PagedKv& kv) {
  const DecoderLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const int64_t rows = hidden.rows();
  VNSA_CHECK_LE(rows, max_rows_);
  workspace_.Reset();
  const TensorView qkv = workspace_.Matrix(backend_.attention_type(), rows, qkv_size());
  const TensorView attended = workspace_.Matrix(backend_.attention_type(), rows, shape_.q_size());
  const size_t used = workspace_.used();
  const TensorView normed = workspace_.Matrix(backend_.activation_type(), rows, hidden_size());
  Project(w, hidden, table, normed, qkv);
  backend_.AppendDecodeKv(kv, KeyPart(qkv), ValuePart(qkv));
  backend_.DecodeAttention(kv, QueryPart(qkv), attended);
  workspace_.ReleaseTo(used);
  Finish(w, attended, hidden);
}

void LanguageModel::FinalNorm(const TensorView& hidden, const TensorView& out) {
  backend_.RmsNorm(hidden, weights_.final_norm, config_.text.rms_norm_eps, out);
}

void LanguageModel::Logits(const TensorView& hidden, const TensorView& logits) {
  const int64_t rows = hidden.rows();
  VNSA_CHECK_LE(rows, std::min(max_rows_, kMaxLogitRows));
  workspace_.Reset();
  const TensorView normed = workspace_.Matrix(backend_.activation_type(), rows, hidden_size());
  FinalNorm(hidden, normed);
  if (!shard_.divided()) {
    backend_.Linear(normed, weights_.head(), logits);
    return;
  }
  // Each rank's [rows, part of the vocabulary] one after the other: `rows` floats an id.
  const TensorView parts = workspace_.Matrix(DType::kF32, vocab_size(), rows);
  const RankShare own = shard_.Part(vocab_size());
  backend_.Linear(normed, weights_.head(),
                  MatrixView(parts.f32() + own.begin * rows, DType::kF32, rows, own.size()));
  shard_.collective->AllGather(parts, vocab_size());
  GatherLogits(parts, logits);
}

void LanguageModel::GatherLogits(const TensorView& parts, const TensorView& logits) {
  const int64_t rows = logits.rows();
  for (int rank = 0; rank < shard_.num_ranks(); ++rank) {
    const RankShare ids = ShareOf(vocab_size(), rank, shard_.num_ranks());
    backend_.CopyRows(MatrixView(parts.f32() + ids.begin * rows, DType::kF32, rows, ids.size()), {},
                      Columns(logits, ids.begin, ids.size()));
  }
}

}  // namespace videonsa
