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
                                        bool bias) {
    return Stack({{name, std::move(shape)}}, bias);
  }

  std::unique_ptr<LinearWeights> Stack(
      const std::vector<std::pair<std::string, std::vector<int64_t>>>& parts, bool bias) {
    std::vector<LinearPart> loaded;
    for (const auto& [name, shape] : parts) loaded.push_back(Part(name, shape, bias));
    if (!status_.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<LinearWeights>> packed = backend_.PackLinear(loaded);
    source_.Release();
    return Take(std::move(packed));
  }

  // With zeros up to `out` and `in` features.
  std::unique_ptr<LinearWeights> Padded(const std::string& name, std::vector<int64_t> shape,
                                        bool bias, int64_t out, int64_t in) {
    const LinearPart part = Part(name, std::move(shape), bias);
    if (!status_.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<LinearWeights>> packed = backend_.PackPadded(part, out, in);
    source_.Release();
    return Take(std::move(packed));
  }

  VectorWeights Vector(const std::string& name, int64_t size) {
    const TensorView view = Load(name, {size});
    if (!status_.ok()) return {};
    absl::StatusOr<VectorWeights> vector = backend_.LoadVector(view);
    source_.Release();
    return Take(std::move(vector));
  }

  // Loads and drops a tensor, for its checks.
  void Check(const std::string& name, std::vector<int64_t> shape) {
    Load(name, std::move(shape));
    source_.Release();
  }

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  int64_t PaddedWidth(int64_t width) const { return backend_.PaddedWidth(width); }

 private:
  LinearPart Part(const std::string& name, std::vector<int64_t> shape, bool bias) {
    const int64_t out_features = shape[0];
    LinearPart part;
    part.weight = Load(name + ".weight", std::move(shape));
    if (bias) part.bias = Load(name + ".bias", {out_features});
    return part;
  }

  TensorView Load(const std::string& name, std::vector<int64_t> shape) {
    if (!status_.ok()) return {};
    return Take(source_.Load(name, shape));
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

DecoderLayerWeights LoadLayer(const TextConfig& config, bool gates, int layer, Loader& loader) {
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  const std::string attention = prefix + "self_attn.";
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t q_size = int64_t{config.num_q_heads} * config.head_dim;
  const int64_t kv_size = int64_t{config.num_kv_heads} * config.head_dim;
  DecoderLayerWeights weights;
  weights.input_norm = loader.Vector(prefix + "input_layernorm.weight", hidden);
  weights.post_attention_norm = loader.Vector(prefix + "post_attention_layernorm.weight", hidden);
  weights.qkv = loader.Stack({{attention + "q_proj", {q_size, hidden}},
                              {attention + "k_proj", {kv_size, hidden}},
                              {attention + "v_proj", {kv_size, hidden}}},
                             true);
  weights.o = loader.Linear(attention + "o_proj", {hidden, q_size}, false);
  weights.gate = loader.Linear(prefix + "mlp.gate_proj", {inner, hidden}, false);
  weights.up = loader.Linear(prefix + "mlp.up_proj", {inner, hidden}, false);
  weights.down = loader.Linear(prefix + "mlp.down_proj", {hidden, inner}, false);
  if (gates) {
    weights.branch_gate_in = loader.Linear(attention + "g_proj_1", {hidden, hidden}, true);
    weights.branch_gate_out =
        loader.Linear(attention + "g_proj_2", {int64_t{3} * config.num_q_heads, hidden}, true);
  }
  return weights;
}

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, WeightSource& source,
                                         Backend& backend, const LoadProgress& progress) {
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
    weights.layers.push_back(LoadLayer(text, config.attention.has_gates(), layer, loader));
    loader.LayerDone();
  }
  weights.final_norm = loader.Vector("norm.weight", text.hidden_size);
  const std::vector<int64_t> table = {text.vocab_size, text.hidden_size};
  weights.embedding = loader.Linear("embed_tokens", table, false);
  if (!text.tied_head) {
    weights.lm_head = loader.Linear("lm_head", table, false);
  } else if (loader.ok() && source.Has("lm_head.weight")) {
    loader.Check("lm_head.weight", table);  // a copy that some writers keep; not used
  }
  VNSA_RETURN_IF_ERROR(loader.status());
  VNSA_RETURN_IF_ERROR(source.CheckAllLoaded());
  return weights;
}

}  // namespace videonsa
