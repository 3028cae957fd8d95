#include "tests/support/model/model_folder.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/common/bf16.h"
#include "runtime/base/check.h"

namespace videonsa::test {
namespace {

using nlohmann::json;

class TensorList {
 public:
  explicit TensorList(uint64_t seed) : random_(seed) {}

  // Uniform in centre +- spread.
  void Add(const std::string& name, std::vector<int64_t> shape, float spread, float centre = 0) {
    int64_t count = 1;
    for (int64_t dim : shape) count *= dim;
    FileTensor tensor{"BF16", std::move(shape), {}};
    std::uniform_real_distribution<float> uniform(-spread, spread);
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t bits = RoundToBf16(centre + uniform(random_));
      tensor.bytes.append(reinterpret_cast<const char*>(&bits), 2);
    }
    tensors_.emplace(name, std::move(tensor));
  }
  void Linear(const std::string& name, int64_t out, int64_t in, bool bias) {
    Add(name + ".weight", {out, in}, 1.5f / std::sqrt(static_cast<float>(in)));
    if (bias) Add(name + ".bias", {out}, 0.3f);
  }
  void Norm(const std::string& name, int64_t size) { Add(name, {size}, 0.2f, 1.0f); }

  std::map<std::string, FileTensor> Take() { return std::move(tensors_); }

 private:
  std::mt19937_64 random_;
  std::map<std::string, FileTensor> tensors_;
};

}  // namespace

std::string SafetensorsBytes(const std::map<std::string, FileTensor>& tensors) {
  json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  std::string text = header.dump();
  while (text.size() % 8 != 0) text += ' ';
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text + data;
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
  out.close();
  VNSA_CHECK(out.good()) << path;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  VNSA_CHECK(in.good()) << path;
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

json TinyModel::Config() const {
  const int sixth = head_dim / 2 / 4;
  json config = {
      {"architectures", {"Qwen2_5_VLForConditionalGeneration"}},
      {"model_type", "qwen2_5_vl"},
      {"hidden_size", hidden},
      {"intermediate_size", intermediate},
      {"num_hidden_layers", layers},
      {"num_attention_heads", q_heads},
      {"num_key_value_heads", kv_heads},
      {"head_dim", head_dim},
      {"vocab_size", vocab},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 10000.0},
      {"max_position_embeddings", 32768},
      {"hidden_act", "silu"},
      {"tie_word_embeddings", tied},
      {"image_token_id", kImagePad},
      {"video_token_id", kVideoPad},
      {"vision_start_token_id", kVisionStart},
      {"vision_end_token_id", kVisionEnd},
      {"eos_token_id", kStop},
      {"rope_scaling",
       {{"type", "mrope"},
        {"mrope_section", {head_dim / 2 - 2 * 3 * sixth / 2, 3 * sixth / 2, 3 * sixth / 2}}}},
      {"vision_config",
       {{"depth", vision_depth},
        {"hidden_size", vision_hidden},
        {"num_heads", vision_heads},
        {"intermediate_size", vision_intermediate},
        {"out_hidden_size", hidden},
        {"fullatt_block_indexes", {vision_depth - 1}},
        {"tokens_per_second", 2}}}};
  if (semantics != "dense") {
    config["nsa"] = {{"semantics", semantics},
                     {"block_size", 64},
                     {"block_counts", selected_blocks},
                     {"window_size", window_tokens},
                     {"gate_temperature", 0.3}};
  }
  return config;
}

std::map<std::string, FileTensor> TinyModel::Tensors() const {
  TensorList list(seed);
  list.Add("visual.patch_embed.proj.weight", {vision_hidden, 3, 2, 14, 14}, 0.05f);
  for (int block = 0; block < vision_depth; ++block) {
    const std::string prefix = absl::StrCat("visual.blocks.", block, ".");
    list.Norm(prefix + "norm1.weight", vision_hidden);
    list.Norm(prefix + "norm2.weight", vision_hidden);
    list.Linear(prefix + "attn.qkv", 3 * vision_hidden, vision_hidden, true);
    list.Linear(prefix + "attn.proj", vision_hidden, vision_hidden, true);
    list.Linear(prefix + "mlp.gate_proj", vision_intermediate, vision_hidden, true);
    list.Linear(prefix + "mlp.up_proj", vision_intermediate, vision_hidden, true);
    list.Linear(prefix + "mlp.down_proj", vision_hidden, vision_intermediate, true);
  }
  list.Norm("visual.merger.ln_q.weight", vision_hidden);
  list.Linear("visual.merger.mlp.0", 4 * vision_hidden, 4 * vision_hidden, true);
  list.Linear("visual.merger.mlp.2", hidden, 4 * vision_hidden, true);
  for (int layer = 0; layer < layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    list.Norm(prefix + "input_layernorm.weight", hidden);
    list.Norm(prefix + "post_attention_layernorm.weight", hidden);
    list.Linear(prefix + "self_attn.q_proj", q_heads * head_dim, hidden, true);
    list.Linear(prefix + "self_attn.k_proj", kv_heads * head_dim, hidden, true);
    list.Linear(prefix + "self_attn.v_proj", kv_heads * head_dim, hidden, true);
    list.Linear(prefix + "self_attn.o_proj", hidden, q_heads * head_dim, false);
    if (semantics != "dense") {
      list.Linear(prefix + "self_attn.g_proj_1", hidden, hidden, true);
      list.Linear(prefix + "self_attn.g_proj_2", 3 * q_heads, hidden, true);
    }
    list.Linear(prefix + "mlp.gate_proj", intermediate, hidden, false);
    list.Linear(prefix + "mlp.up_proj", intermediate, hidden, false);
    list.Linear(prefix + "mlp.down_proj", hidden, intermediate, false);
  }
  list.Norm("model.norm.weight", hidden);
  list.Add("model.embed_tokens.weight", {vocab, hidden}, 1.0f);
  if (!tied) list.Linear("lm_head", vocab, hidden, false);
  return list.Take();
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "videonsa-test-XXXXXX").string();
  VNSA_CHECK(mkdtemp(pattern.data()) != nullptr) << pattern;
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void WriteModelFolder(const TinyModel& model, const TemporaryFolder& folder) {
  WriteFile(folder / "config.json", model.Config().dump(1));
  WriteFile(folder / "generation_config.json",
            json{{"eos_token_id", {kStop}}, {"repetition_penalty", 1.05}}.dump());
  WriteFile(folder / "model.safetensors", SafetensorsBytes(model.Tensors()));
}

void WriteServingFolder(const TinyModel& model, const TemporaryFolder& folder) {
  WriteModelFolder(model, folder);
  const std::string small = std::string(VIDEONSA_TEST_DATA) + "/text/small/";
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "config.json"));
  const nlohmann::json ids = nlohmann::json::parse(ReadFile(small + "config.json"));
  for (const char* key : {"eos_token_id", "vision_start_token_id", "vision_end_token_id",
                          "image_token_id", "video_token_id"}) {
    config[key] = ids[key];
  }
  WriteFile(folder / "config.json", config.dump());
  for (const char* name : {"generation_config.json", "tokenizer.json"}) {
    WriteFile(folder / name, ReadFile(small + name));
  }
}

void SplitIntoShards(const TinyModel& model, const TemporaryFolder& folder, bool new_names) {
  const std::string names[2] = {"model-00001-of-00002.safetensors",
                                "model-00002-of-00002.safetensors"};
  std::map<std::string, FileTensor> shards[2];
  json map = json::object();
  int index = 0;
  for (auto& [old_name, tensor] : model.Tensors()) {
    std::string name = old_name;
    if (new_names && absl::StartsWith(name, "visual.")) name = "model." + name;
    if (new_names && absl::StartsWith(name, "model.") && !absl::StartsWith(name, "model.visual.")) {
      name = "model.language_model." + name.substr(6);
    }
    map[name] = names[index];
    shards[index].emplace(name, tensor);
    index = 1 - index;
  }
  for (int shard = 0; shard < 2; ++shard) {
    WriteFile(folder / names[shard], SafetensorsBytes(shards[shard]));
  }
  WriteFile(folder / "model.safetensors.index.json", json{{"weight_map", map}}.dump());
  std::filesystem::remove(folder / "model.safetensors");
}

}  // namespace videonsa::test
