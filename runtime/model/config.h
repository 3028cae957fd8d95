#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/api/generate_request.h"

namespace videonsa {

/// The vision tower. Patches of 14 pixels, 2 frames a temporal patch and a 2 x 2 merger are fixed.
struct VisionConfig {
  int depth = 32;
  int hidden_size = 3584;
  int intermediate_size = 3420;
  int num_heads = 16;
  int out_hidden_size = 3584;
  int window_size = 112;  ///< pixels
  std::vector<int> full_attention_layers = {7, 15, 23, 31};
  int tokens_per_second = 4;

  int head_dim() const { return hidden_size / num_heads; }
};

/// The language model.
struct TextConfig {
  int num_layers = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_q_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;
  int max_positions = 32768;
  float rms_norm_eps = 1e-5f;
  float rope_theta = 1e6f;
  /// Frequencies rotated by time, height and width; they sum to head_dim / 2.
  std::vector<int> mrope_section;
  bool tied_head = false;
};

/// How the checkpoint was trained to attend.
struct TrainedAttention {
  AttentionSemantics semantics = AttentionSemantics::kDense;
  int selected_blocks = 0;  ///< 0 for dense
  int window_tokens = 0;    ///< 0 for dense

  bool has_gates() const { return semantics != AttentionSemantics::kDense; }
};

/// Token ids with a meaning for the model.
struct SpecialTokens {
  int32_t image_pad = -1;
  int32_t video_pad = -1;
  int32_t vision_start = -1;
  int32_t vision_end = -1;
  std::vector<int32_t> stop;  ///< generation_config's eos list, else config's
};

/// generation_config.json; unset where the file says nothing.
struct GenerationDefaults {
  bool do_sample = false;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> repetition_penalty;
  std::optional<int> max_new_tokens;
};

/// preprocessor_config.json.
struct PreprocessorConfig {
  int64_t min_pixels = 3136;
  int64_t max_pixels = 12845056;
  float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
  float stddev[3] = {0.26862954f, 0.26130258f, 0.27577711f};
};

/// Everything a model folder says about its network.
struct ModelConfig {
  VisionConfig vision;
  TextConfig text;
  TrainedAttention attention;
  SpecialTokens tokens;
  GenerationDefaults generation;
  PreprocessorConfig preprocessor;
};

/// Reads config.json, and generation_config.json and preprocessor_config.json where they exist.
///
/// Both layouts are understood: text fields at the top level, or in `text_config`. The attention is
/// that of the `nsa` object if there is one, `released_nsa` for the published VideoNSA class
/// (`architectures`), dense otherwise.
/// Errors: FAILED_PRECONDITION (MODEL_INVALID) names file, key, value and limit.
/// Source: preprocess-and-model, section 6.4.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir);

/// As above for one file that is a config.json by itself (dummy weights).
absl::StatusOr<ModelConfig> LoadModelConfigFile(const std::string& path);

}  // namespace videonsa
