#include "runtime/model/config.h"

#include <functional>
#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "tests/support/model/model_folder.h"

namespace videonsa {
namespace {

using nlohmann::json;
using test::TinyModel;

absl::StatusOr<ModelConfig> Load(const json& config) {
  const test::TemporaryFolder folder;
  test::WriteFile(folder / "config.json", config.dump());
  return LoadModelConfig(folder.path());
}

TEST(Config, ReadsTheFlatLayout) {
  const auto config = Load(TinyModel{}.Config());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->text.num_layers, 2);
  EXPECT_EQ(config->text.num_kv_heads, 2);
  EXPECT_EQ(config->text.mrope_section, (std::vector<int>{2, 3, 3}));
  EXPECT_EQ(config->vision.full_attention_layers, (std::vector<int>{1}));
  EXPECT_EQ(config->tokens.video_pad, test::kVideoPad);
  EXPECT_EQ(config->attention.semantics, AttentionSemantics::kDense);
}

TEST(Config, TextConfigAndRopeParametersWin) {
  json config = TinyModel{}.Config();
  json text = config;
  text.erase("vision_config");
  text.erase("rope_scaling");
  text.erase("rope_theta");
  text["model_type"] = "qwen2_5_vl_text";
  text["rope_parameters"] = {
      {"rope_theta", 5e5}, {"rope_type", "default"}, {"mrope_section", {4, 2, 2}}};
  text["num_hidden_layers"] = 7;
  config["text_config"] = text;
  config["dtype"] = "bfloat16";
  const auto loaded = Load(config);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->text.num_layers, 7);
  EXPECT_EQ(loaded->text.rope_theta, 5e5f);
  EXPECT_EQ(loaded->text.mrope_section, (std::vector<int>{4, 2, 2}));
}

TEST(Config, OwnNsaBlock) {
  TinyModel model;
  model.semantics = "causal_nsa";
  model.selected_blocks = 5;
  model.window_tokens = 77;
  const auto config = Load(model.Config());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->attention.semantics, AttentionSemantics::kCausalNsa);
  EXPECT_EQ(config->attention.selected_blocks, 5);
  EXPECT_EQ(config->attention.window_tokens, 77);
}

TEST(Config, RecognisesThePublishedCheckpoint) {
  TinyModel model;
  model.q_heads = 28;
  model.kv_heads = 4;
  json config = model.Config();
  config["architectures"] = {"VideoNSAForConditionalGeneration"};
  auto loaded = Load(config);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->attention.semantics, AttentionSemantics::kReleasedNsa);
  EXPECT_EQ(loaded->attention.selected_blocks, 32);
  EXPECT_EQ(loaded->attention.window_tokens, 256);
  config["block_counts"] = 4;
  config["window_size"] = 64;
  loaded = Load(config);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->attention.selected_blocks, 4);
  EXPECT_EQ(loaded->attention.window_tokens, 64);
}

TEST(Config, GenerationAndPreprocessorFiles) {
  const test::TemporaryFolder folder;
  test::WriteFile(folder / "config.json", TinyModel{}.Config().dump());
  test::WriteFile(folder / "generation_config.json",
                  R"({"eos_token_id":[154,3],"repetition_penalty":1.05,"do_sample":true,)"
                  R"("temperature":1e-06,"top_k":1,"top_p":0.001})");
  test::WriteFile(folder / "preprocessor_config.json", R"({"min_pixels":784,"max_pixels":50176})");
  const auto config = LoadModelConfig(folder.path());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->tokens.stop, (std::vector<int32_t>{154, 3}));
  EXPECT_EQ(config->generation.repetition_penalty, 1.05f);
  EXPECT_EQ(config->generation.top_k, 1);
  EXPECT_FALSE(config->generation.max_new_tokens.has_value());
  EXPECT_EQ(config->preprocessor.max_pixels, 50176);
}

struct BadConfig {
  const char* name;
  std::function<void(json&)> change;
  const char* message;
};

TEST(Config, RefusesWhatItCannotRun) {
  const BadConfig cases[] = {
      {"type", [](json& c) { c["hidden_size"] = "64"; }, "hidden_size"},
      {"fraction", [](json& c) { c["num_hidden_layers"] = 2.5; }, "num_hidden_layers"},
      {"negative", [](json& c) { c["vocab_size"] = -1; }, "vocab_size"},
      {"huge", [](json& c) { c["hidden_size"] = 18446744073709551615u; }, "hidden_size"},
      {"missing", [](json& c) { c.erase("intermediate_size"); }, "intermediate_size"},
      {"no vision", [](json& c) { c.erase("vision_config"); }, "vision_config"},
      {"vision type", [](json& c) { c["vision_config"] = 3; }, "vision_config"},
      {"kv heads", [](json& c) { c["num_key_value_heads"] = 3; }, "num_key_value_heads"},
      {"head size", [](json& c) { c["head_dim"] = 24; }, "head_dim"},
      {"sections",
       [](json& c) {
         c["rope_scaling"]["mrope_section"] = {2, 3, 4};
       },
       "mrope_section"},
      {"yarn", [](json& c) { c["rope_scaling"]["type"] = "yarn"; }, "yarn"},
      {"sliding", [](json& c) { c["use_sliding_window"] = true; }, "use_sliding_window"},
      {"activation", [](json& c) { c["hidden_act"] = "relu"; }, "relu"},
      {"patch", [](json& c) { c["vision_config"]["patch_size"] = 16; }, "patch_size"},
      {"vision heads", [](json& c) { c["vision_config"]["num_heads"] = 3; }, "num_heads"},
      {"vision window", [](json& c) { c["vision_config"]["window_size"] = 100; }, "window_size"},
      {"out", [](json& c) { c["vision_config"]["out_hidden_size"] = 65; }, "out_hidden_size"},
      {"model type", [](json& c) { c["model_type"] = "llama"; }, "llama"},
      {"pad id", [](json& c) { c["video_token_id"] = 160; }, "video_token_id"},
      {"no pad id", [](json& c) { c.erase("video_token_id"); }, "video_token_id"},
      {"semantics",
       [](json& c) {
         c["nsa"] = {{"semantics", "magic"}};
       },
       "magic"},
      {"blocks",
       [](json& c) {
         c["nsa"] = {{"block_counts", 0}};
       },
       "block_counts"},
      {"block size",
       [](json& c) {
         c["nsa"] = {{"block_size", 32}};
       },
       "block_size"},
      {"temperature",
       [](json& c) {
         c["nsa"] = {{"gate_temperature", 0.5}};
       },
       "gate_temperature"},
      {"released heads", [](json& c) { c["architectures"] = {"VideoNSAForConditionalGeneration"}; },
       "28"},
  };
  for (const BadConfig& bad : cases) {
    json config = TinyModel{}.Config();
    bad.change(config);
    const auto loaded = Load(config);
    ASSERT_FALSE(loaded.ok()) << bad.name;
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kFailedPrecondition) << bad.name;
    EXPECT_EQ(GetErrorInfo(loaded.status())->reason, "MODEL_INVALID") << bad.name;
    EXPECT_TRUE(absl::StrContains(loaded.status().message(), bad.message))
        << bad.name << ": " << loaded.status().message();
    EXPECT_TRUE(absl::StrContains(loaded.status().message(), "config.json")) << bad.name;
  }
}

TEST(Config, RefusesBrokenFiles) {
  for (const char* text : {"", "{", "[]", "null", "\xff\xfe", "{\"a\":1} x"}) {
    const test::TemporaryFolder folder;
    test::WriteFile(folder / "config.json", text);
    EXPECT_FALSE(LoadModelConfig(folder.path()).ok()) << text;
  }
  const test::TemporaryFolder folder;
  EXPECT_FALSE(LoadModelConfig(folder.path()).ok());
  EXPECT_FALSE(LoadModelConfig(folder.path() + "/nothing").ok());
}

}  // namespace
}  // namespace videonsa
