#include "runtime/model/config.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status_macros.h"
#include "runtime/model/json_fields.h"
#include "runtime/model/mapped_file.h"

namespace videonsa {
namespace {

using nlohmann::json;

constexpr int kMaxLayers = 512;
constexpr int kMaxWidth = 1 << 17;
constexpr int kMaxHeads = 512;
constexpr int kMaxVocab = 1 << 22;
constexpr int kMaxHeadDim = 256;
// The kernels hold both numbers as constants (kernels/nsa/nsa_params.h).
constexpr int kBlockSize = 64;
constexpr float kGateTemperature = 0.3f;
constexpr int kReleasedHeads = 28;
constexpr int kReleasedKvHeads = 4;
constexpr int kReleasedMaxBlocks = 32;

void ReadFixed(const JsonFields& fields, const char* key, int expected) {
  int value = expected;
  fields.Int(key, 0, INT32_MAX, &value);
  if (value != expected)
    fields.Fail(key, absl::StrCat(value, ", only ", expected, " is supported"));
}

void ReadActivation(const JsonFields& fields) {
  std::string activation = "silu";
  fields.String("hidden_act", &activation);
  if (activation != "silu") fields.Fail("hidden_act", activation + ", only silu is supported");
}

void ReadVision(const JsonFields& fields, VisionConfig* vision) {
  fields.Int("depth", 1, kMaxLayers, &vision->depth);
  fields.Int("hidden_size", 1, kMaxWidth, &vision->hidden_size);
  fields.Int("intermediate_size", 1, kMaxWidth, &vision->intermediate_size);
  fields.Int("num_heads", 1, kMaxHeads, &vision->num_heads);
  fields.Int("out_hidden_size", 1, kMaxWidth, &vision->out_hidden_size);
  fields.Int("window_size", 28, 28 * 256, &vision->window_size);
  fields.Ints("fullatt_block_indexes", 0, kMaxLayers, &vision->full_attention_layers);
  fields.Int("tokens_per_second", 0, 1000, &vision->tokens_per_second);
  ReadFixed(fields, "in_channels", 3);
  ReadFixed(fields, "in_chans", 3);
  ReadFixed(fields, "patch_size", 14);
  ReadFixed(fields, "spatial_patch_size", 14);
  ReadFixed(fields, "temporal_patch_size", 2);
  ReadFixed(fields, "spatial_merge_size", 2);
  ReadActivation(fields);
  if (!fields.ok()) return;
  if (vision->hidden_size % vision->num_heads != 0 || vision->head_dim() % 16 != 0 ||
      vision->head_dim() > kMaxHeadDim) {
    fields.Fail("num_heads",
                absl::StrCat(vision->num_heads, " heads for hidden_size ", vision->hidden_size,
                             ": head size must be a multiple of 16, at most ", kMaxHeadDim));
  }
  if (vision->window_size % 28 != 0) {
    fields.Fail("window_size", absl::StrCat(vision->window_size, " is no multiple of 28"));
  }
}

void ReadRope(const JsonFields& fields, TextConfig* text) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const JsonFields rope = fields.Object(key);
    rope.Float("rope_theta", 1, 1e12, &text->rope_theta);
    rope.Ints("mrope_section", 0, kMaxHeadDim, &text->mrope_section);
    for (const char* type_key : {"type", "rope_type"}) {
      std::string type = "default";
      rope.String(type_key, &type);
      if (type != "default" && type != "mrope") {
        rope.Fail(type_key, type + ", only default and mrope are supported");
      }
    }
  }
  fields.Float("rope_theta", 1, 1e12, &text->rope_theta);
}

// Fields of `fields` replace what `text` holds; called with the top level, then with text_config.
void ReadText(const JsonFields& fields, TextConfig* text) {
  fields.Int("num_hidden_layers", 1, kMaxLayers, &text->num_layers);
  fields.Int("hidden_size", 1, kMaxWidth, &text->hidden_size);
  fields.Int("intermediate_size", 1, kMaxWidth, &text->intermediate_size);
  fields.Int("num_attention_heads", 1, kMaxHeads, &text->num_q_heads);
  fields.Int("num_key_value_heads", 1, kMaxHeads, &text->num_kv_heads);
  fields.Int("head_dim", 1, kMaxHeadDim, &text->head_dim);
  fields.Int("vocab_size", 1, kMaxVocab, &text->vocab_size);
  fields.Int("max_position_embeddings", 1, 1 << 30, &text->max_positions);
  fields.Float("rms_norm_eps", 1e-20, 1, &text->rms_norm_eps);
  fields.Bool("tie_word_embeddings", &text->tied_head);
  bool sliding = false;
  fields.Bool("use_sliding_window", &sliding);
  if (sliding) fields.Fail("use_sliding_window", "true, only false is supported");
  ReadActivation(fields);
  ReadRope(fields, text);
}

void CheckText(const JsonFields& fields, TextConfig* text) {
  const std::pair<const char*, int> needed[] = {
      {"num_hidden_layers", text->num_layers},
      {"hidden_size", text->hidden_size},
      {"intermediate_size", text->intermediate_size},
      {"num_attention_heads", text->num_q_heads},
      {"vocab_size", text->vocab_size},
  };
  for (const auto& [key, value] : needed) {
    if (value == 0) return fields.Fail(key, "missing");
  }
  if (text->num_kv_heads == 0) text->num_kv_heads = text->num_q_heads;
  if (text->head_dim == 0) text->head_dim = text->hidden_size / text->num_q_heads;
  if (text->num_q_heads % text->num_kv_heads != 0) {
    return fields.Fail("num_key_value_heads", absl::StrCat(text->num_kv_heads, " does not divide ",
                                                           text->num_q_heads, " query heads"));
  }
  if (text->head_dim % 16 != 0 || text->head_dim == 0 || text->head_dim > kMaxHeadDim) {
    return fields.Fail("head_dim", absl::StrCat(text->head_dim, " is no multiple of 16 in [16, ",
                                                kMaxHeadDim, "]"));
  }
  int sum = 0;
  for (int section : text->mrope_section) sum += section;
  if (text->mrope_section.size() != 3 || sum != text->head_dim / 2) {
    return fields.Fail("rope_scaling.mrope_section",
                       absl::StrCat(text->mrope_section.size(), " sections with sum ", sum,
                                    ", needed: 3 with sum ", text->head_dim / 2));
  }
}

void ReadNsaObject(const JsonFields& nsa, TrainedAttention* attention) {
  std::string semantics = "causal_nsa";
  nsa.String("semantics", &semantics);
  if (semantics == "dense") return;
  if (semantics == "causal_nsa") {
    attention->semantics = AttentionSemantics::kCausalNsa;
  } else if (semantics == "released_nsa") {
    attention->semantics = AttentionSemantics::kReleasedNsa;
  } else {
    return nsa.Fail("semantics", semantics + " is not dense, causal_nsa or released_nsa");
  }
  attention->selected_blocks = 32;
  attention->window_tokens = 256;
  nsa.Int("block_counts", 1, 1 << 20, &attention->selected_blocks);
  nsa.Int("window_size", 1, 1 << 30, &attention->window_tokens);
  ReadFixed(nsa, "block_size", kBlockSize);
  float temperature = kGateTemperature;
  nsa.Float("gate_temperature", 0, 1e6, &temperature);
  if (std::fabs(temperature - kGateTemperature) > 1e-6f) {
    nsa.Fail("gate_temperature", absl::StrCat(temperature, ", only 0.3 is supported"));
  }
}

void ReadAttention(const JsonFields& top, const JsonFields& text_fields, ModelConfig* config) {
  TrainedAttention& attention = config->attention;
  std::vector<std::string> architectures;
  top.Strings("architectures", &architectures);
  if (top.Has("nsa")) {
    ReadNsaObject(top.Object("nsa"), &attention);
  } else if (std::find(architectures.begin(), architectures.end(),
                       "VideoNSAForConditionalGeneration") != architectures.end()) {
    attention = {AttentionSemantics::kReleasedNsa, 32, 256};
    for (const JsonFields* fields : {&top, &text_fields}) {
      fields->Int("block_counts", 1, 1 << 20, &attention.selected_blocks);
      fields->Int("window_size", 1, 1 << 30, &attention.window_tokens);
    }
  }
  if (attention.semantics != AttentionSemantics::kReleasedNsa) return;
  const TextConfig& text = config->text;
  if (text.num_q_heads != kReleasedHeads || text.num_kv_heads != kReleasedKvHeads) {
    top.Fail("num_attention_heads",
             absl::StrCat("released_nsa exists for ", kReleasedHeads, " query heads and ",
                          kReleasedKvHeads, " KV heads only, not ", text.num_q_heads, " and ",
                          text.num_kv_heads));
  }
  if (attention.selected_blocks > kReleasedMaxBlocks) {
    top.Fail("block_counts", absl::StrCat(attention.selected_blocks,
                                          ", released_nsa selects at most ", kReleasedMaxBlocks));
  }
}

// Ids at the top level win; a text_config repeats them.
void ReadTokens(const JsonFields& top, const JsonFields& text, int vocab, SpecialTokens* tokens) {
  const int64_t last = vocab - 1;
  for (const JsonFields* fields : {&text, &top}) {
    fields->Int("image_token_id", 0, last, &tokens->image_pad);
    fields->Int("video_token_id", 0, last, &tokens->video_pad);
    fields->Int("vision_start_token_id", 0, last, &tokens->vision_start);
    fields->Int("vision_end_token_id", 0, last, &tokens->vision_end);
    fields->IntOrInts("eos_token_id", 0, last, &tokens->stop);
  }
  const std::pair<const char*, int32_t> needed[] = {
      {"image_token_id", tokens->image_pad},
      {"video_token_id", tokens->video_pad},
      {"vision_start_token_id", tokens->vision_start}};
  for (const auto& [key, value] : needed) {
    if (value < 0) top.Fail(key, "missing");
  }
}

absl::StatusOr<ModelConfig> ParseConfig(const json& document, const std::string& file) {
  absl::Status status;
  const JsonFields top(&document, file, "", &status);
  const JsonFields text_fields = top.Object("text_config");
  ModelConfig config;
  std::string model_type = "qwen2_5_vl";
  top.String("model_type", &model_type);
  if (model_type != "qwen2_5_vl") top.Fail("model_type", model_type + " is not qwen2_5_vl");
  if (!top.Has("vision_config")) top.Fail("vision_config", "missing");
  ReadVision(top.Object("vision_config"), &config.vision);
  ReadText(top, &config.text);
  ReadText(text_fields, &config.text);
  VNSA_RETURN_IF_ERROR(status);
  CheckText(top, &config.text);
  VNSA_RETURN_IF_ERROR(status);
  ReadTokens(top, text_fields, config.text.vocab_size, &config.tokens);
  ReadAttention(top, text_fields, &config);
  if (config.vision.out_hidden_size != config.text.hidden_size) {
    top.Fail("vision_config.out_hidden_size",
             absl::StrCat(config.vision.out_hidden_size, " is not hidden_size ",
                          config.text.hidden_size));
  }
  VNSA_RETURN_IF_ERROR(status);
  return config;
}

template <typename T, typename Read>
void ReadOptional(const JsonFields& fields, const char* key, T initial, std::optional<T>* out,
                  const Read& read) {
  if (!fields.Has(key)) return;
  T value = initial;
  read(&value);
  *out = value;
}

absl::Status ReadGeneration(const json& document, ModelConfig* config) {
  absl::Status status;
  const JsonFields fields(&document, "generation_config.json", "", &status);
  GenerationDefaults& generation = config->generation;
  fields.Bool("do_sample", &generation.do_sample);
  ReadOptional(fields, "temperature", 0.0f, &generation.temperature,
               [&](float* out) { fields.Float("temperature", 0, 1e6, out); });
  ReadOptional(fields, "top_p", 1.0f, &generation.top_p,
               [&](float* out) { fields.Float("top_p", 0, 1, out); });
  ReadOptional(fields, "top_k", 0, &generation.top_k,
               [&](int* out) { fields.Int("top_k", 0, INT32_MAX, out); });
  ReadOptional(fields, "repetition_penalty", 1.0f, &generation.repetition_penalty,
               [&](float* out) { fields.Float("repetition_penalty", 1e-3, 1e3, out); });
  ReadOptional(fields, "max_new_tokens", 0, &generation.max_new_tokens,
               [&](int* out) { fields.Int("max_new_tokens", 1, INT32_MAX, out); });
  fields.IntOrInts("eos_token_id", 0, config->text.vocab_size - 1, &config->tokens.stop);
  return status;
}

absl::Status ReadPreprocessor(const json& document, PreprocessorConfig* preprocessor) {
  absl::Status status;
  const JsonFields fields(&document, "preprocessor_config.json", "", &status);
  fields.Int64("min_pixels", 1, int64_t{1} << 40, &preprocessor->min_pixels);
  fields.Int64("max_pixels", 1, int64_t{1} << 40, &preprocessor->max_pixels);
  fields.Floats("image_mean", 3, preprocessor->mean);
  fields.Floats("image_std", 3, preprocessor->stddev);
  ReadFixed(fields, "patch_size", 14);
  ReadFixed(fields, "temporal_patch_size", 2);
  ReadFixed(fields, "merge_size", 2);
  if (preprocessor->min_pixels > preprocessor->max_pixels) {
    fields.Fail("min_pixels", absl::StrCat(preprocessor->min_pixels, " above max_pixels ",
                                           preprocessor->max_pixels));
  }
  for (float deviation : preprocessor->stddev) {
    if (!(deviation > 0)) fields.Fail("image_std", absl::StrCat(deviation, " is not above 0"));
  }
  return status;
}

bool Exists(const std::string& dir, const std::string& name) {
  return access((dir + "/" + name).c_str(), F_OK) == 0;
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir) {
  VNSA_ASSIGN_OR_RETURN(const json document, ReadJsonObject(dir, "config.json"));
  VNSA_ASSIGN_OR_RETURN(ModelConfig config, ParseConfig(document, "config.json"));
  if (Exists(dir, "generation_config.json")) {
    VNSA_ASSIGN_OR_RETURN(const json generation, ReadJsonObject(dir, "generation_config.json"));
    VNSA_RETURN_IF_ERROR(ReadGeneration(generation, &config));
  }
  if (Exists(dir, "preprocessor_config.json")) {
    VNSA_ASSIGN_OR_RETURN(const json preprocessor, ReadJsonObject(dir, "preprocessor_config.json"));
    VNSA_RETURN_IF_ERROR(ReadPreprocessor(preprocessor, &config.preprocessor));
  }
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfigFile(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string dir = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  VNSA_ASSIGN_OR_RETURN(const json document, ReadJsonObject(dir, name));
  return ParseConfig(document, name);
}

}  // namespace videonsa
