#include "runtime/model/weights.h"

#include <functional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

// Loads single layers; remembers the first error so that the lists below read as tables.
class Loader {
 public:
  // `layer_done` is called by LayerDone.
  Loader(WeightSource& source, Backend& backend, std::function<void()> layer_done)
      : source_(source), backend_(backend), layer_done_(std::move(layer_done)) {}

  void LayerDone() const { layer_done_(); }

  std::unique_ptr<LinearWeights> Linear(const std::string& name, std::vector<int64_t> shape,
                                        bool bias, const TensorSlice& slice = {}) {
    return Stack({{name, std::move(shape), slice}}, bias);
  }

  // One linear layer of a file, or a slice of it.
  struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
    TensorSlice slice;
  };
  std::unique_ptr<LinearWeights> Stack(const std::vector<Tensor>& parts, bool bias) {
    std::vector<LinearPart> loaded;
    for (const Tensor& part : parts) {
      loaded.push_back(Part(part.name, part.shape, bias, part.slice));
    }
    if (!status_.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<LinearWeights>> packed = backend_.PackLinear(loaded);
    source_.Release();
    return Take(std::move(packed));
  }

  // With zeros up to `out` and `in` features.
  std::unique_ptr<LinearWeights> Padded(const std::string& name, std::vector<int64_t> shape,
                                        bool bias, int64_t out, int64_t in) {
    const LinearPart part = Part(name, std::move(shape), bias, {});
    if (!status_.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<LinearWeights>> packed = backend_.PackPadded(part, out, in);
    source_.Release();
    return Take(std::move(packed));
  }

  VectorWeights Vector(const std::string& name, int64_t size) {
    const TensorView view = Load(name, {size}, {});
    if (!status_.ok()) return {};
    absl::StatusOr<VectorWeights> vector = backend_.LoadVector(view);
    source_.Release();
    return Take(std::move(vector));
  }

  // Loads and drops a tensor, for its checks.
  void Check(const std::string& name, std::vector<int64_t> shape) {
    Load(name, std::move(shape), {});
    source_.Release();
  }

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  int64_t PaddedWidth(int64_t width) const { return backend_.PaddedWidth(width); }

 private:
  LinearPart Part(const std::string& name, std::vector<int64_t> shape, bool bias,
                  const TensorSlice& slice) {
    const int64_t out_features = shape[0];
    LinearPart part;
    part.weight = Load(name + ".weight", std::move(shape), slice);
    if (bias) {
      part.bias = Load(name + ".bias", {out_features}, slice.axis == 0 ? slice : TensorSlice{});
    }
    return part;
  }

  TensorView Load(const std::string& name, std::vector<int64_t> shape, const TensorSlice& slice) {
    if (!status_.ok()) return {};
    return Take(source_.Load(name, shape, slice));
  }

  template <typename T>
  T Take(absl::StatusOr<T> value) {
    if (value.ok()) return *std::move(value);
    if (status_.ok()) status_ = value.status();
    return T{};
  }

  WeightSource& source_;
  Backend& backend_;
  const std::function<void()> layer_done_;
  absl::Status status_;
};

TensorSlice Rows(const RankShare& share) { return {0, share.begin, share.end}; }
TensorSlice Columns(const RankShare& share) { return {1, share.begin, share.end}; }

VisionBlockWeights LoadVisionBlock(const VisionConfig& config, int block, Loader& loader) {
  const std::string prefix = absl::StrCat("visual.blocks.", block, ".");
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  VisionBlockWeights weights;
  weights.norm1 = loader.Vector(prefix + "norm1.weight", hidden);
  weights.norm2 = loader.Vector(prefix + "norm2.weight", hidden);
  weights.qkv = loader.Linear(prefix + "attn.qkv", {3 * hidden, hidden}, true);
  weights.proj = loader.Linear(prefix + "attn.proj", {hidden, hidden}, true);
  const int64_t padded = loader.PaddedWidth(inner);
  weights.gate = loader.Padded(prefix + "mlp.gate_proj", {inner, hidden}, true, padded, hidden);
  weights.up = loader.Padded(prefix + "mlp.up_proj", {inner, hidden}, true, padded, hidden);
  weights.down = loader.Padded(prefix + "mlp.down_proj", {hidden, inner}, true, hidden, padded);
  return weights;
}

VisionWeights LoadVision(const VisionConfig& config, Loader& loader) {
  VisionWeights weights;
  const int64_t merged = int64_t{4} * config.hidden_size;
  weights.patch_embed =
      loader.Linear("visual.patch_embed.proj", {config.hidden_size, 3, 2, 14, 14}, false);
  for (int block = 0; block < config.depth && loader.ok(); ++block) {
    weights.blocks.push_back(LoadVisionBlock(config, block, loader));
    loader.LayerDone();
  }
  weights.merger_norm = loader.Vector("visual.merger.ln_q.weight", config.hidden_size);
  weights.merger_in = loader.Linear("visual.merger.mlp.0", {merged, merged}, true);
  weights.merger_out = loader.Linear("visual.merger.mlp.2", {config.out_hidden_size, merged}, true);
  return weights;
}

// The attention of a layer. Ranks have whole KV heads and the query heads that read them; the
// branch gates are divided between their two matrices, and one rank adds the second bias.
void LoadAttention(const TextConfig& config, bool gates, const ModelShard& shard,
                   const std::string& prefix, Loader& loader, DecoderLayerWeights& weights) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_size = int64_t{config.num_q_heads} * config.head_dim;
  const int64_t kv_size = int64_t{config.num_kv_heads} * config.head_dim;
  const RankShare q = shard.HeadPart(q_size), kv = shard.HeadPart(kv_size);
  weights.qkv = loader.Stack({{prefix + "q_proj", {q_size, hidden}, Rows(q)},
                              {prefix + "k_proj", {kv_size, hidden}, Rows(kv)},
                              {prefix + "v_proj", {kv_size, hidden}, Rows(kv)}},
                             true);
  weights.o = loader.Linear(prefix + "o_proj", {hidden, q_size}, false, Columns(q));
  if (!gates) return;
  const RankShare inner = shard.HeadPart(hidden);
  const bool adds_bias = !shard.heads_divided() || shard.rank() == 0;
  const int64_t logits = int64_t{3} * config.num_q_heads;
  weights.branch_gate_in = loader.Linear(prefix + "g_proj_1", {hidden, hidden}, true, Rows(inner));
  weights.branch_gate_out =
      loader.Linear(prefix + "g_proj_2", {logits, hidden}, adds_bias, Columns(inner));
  if (!adds_bias) loader.Check(prefix + "g_proj_2.bias", {logits});
}

DecoderLayerWeights LoadLayer(const TextConfig& config, bool gates, const ModelShard& shard,
                              int layer, Loader& loader) {
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const RankShare own = shard.Part(inner);
  DecoderLayerWeights weights;
  weights.input_norm = loader.Vector(prefix + "input_layernorm.weight", hidden);
  weights.post_attention_norm = loader.Vector(prefix + "post_attention_layernorm.weight", hidden);
  LoadAttention(config, gates, shard, prefix + "self_attn.", loader, weights);
  weights.gate = loader.Linear(prefix + "mlp.gate_proj", {inner, hidden}, false, Rows(own));
  weights.up = loader.Linear(prefix + "mlp.up_proj", {inner, hidden}, false, Rows(own));
  weights.down = loader.Linear(prefix + "mlp.down_proj", {hidden, inner}, false, Columns(own));
  return weights;
}

// The embedding is whole everywhere, because few of its rows are read at a time. The head is read
// whole for every token and divided, also when it is tied.
void LoadTables(const TextConfig& text, const ModelShard& shard, WeightSource& source,
                Loader& loader, ModelWeights& weights) {
  const std::vector<int64_t> table = {text.vocab_size, text.hidden_size};
  weights.embedding = loader.Linear("embed_tokens", table, false);
  const TensorSlice own = Rows(shard.Part(text.vocab_size));
  if (!text.tied_head) {
    weights.lm_head = loader.Linear("lm_head", table, false, own);
    return;
  }
  if (shard.divided()) weights.lm_head = loader.Linear("embed_tokens", table, false, own);
  if (loader.ok() && source.Has("lm_head.weight")) {
    loader.Check("lm_head.weight", table);  // a copy that some writers keep; not used
  }
}

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const ModelShard& shard,
                                         WeightSource& source, Backend& backend,
                                         const LoadProgress& progress) {
  Loader loader(
      source, backend,
      [&progress, done = 0, total = config.vision.depth + config.text.num_layers]() mutable {
        ++done;
        if (progress != nullptr) progress(done, total);
      });
  ModelWeights weights;
  const TextConfig& text = config.text;
  weights.vision = LoadVision(config.vision, loader);
  for (int layer = 0; layer < text.num_layers && loader.ok(); ++layer) {
    weights.layers.push_back(LoadLayer(text, config.attention.has_gates(), shard, layer, loader));
    loader.LayerDone();
  }
  weights.final_norm = loader.Vector("norm.weight", text.hidden_size);
  LoadTables(text, shard, source, loader, weights);
  VNSA_RETURN_IF_ERROR(loader.status());
  VNSA_RETURN_IF_ERROR(source.CheckAllLoaded());
  return weights;
}

}  // namespace videonsa
