// Whole model folders: good ones of every layout, and bad ones of every kind.
#include <filesystem>
#include <functional>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"
#include "runtime/model/model.h"
#include "runtime/ops/cpu_backend.h"
#include "tests/support/model/model_folder.h"

namespace videonsa {
namespace {

using test::FileTensor;
using test::TemporaryFolder;
using test::TinyModel;
using Tensors = std::map<std::string, FileTensor>;

absl::Status LoadStatus(const std::string& dir) {
  CpuBackend backend(DType::kF32, 1);
  return Model::Load({dir, false, ""}, backend).status();
}

void ExpectRefused(const TemporaryFolder& folder, const std::string& name,
                   const std::string& message) {
  const absl::Status status = LoadStatus(folder.path());
  ASSERT_FALSE(status.ok()) << name;
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << name << ": " << status;
  ASSERT_TRUE(GetErrorInfo(status).has_value()) << name;
  EXPECT_EQ(GetErrorInfo(status)->reason, "MODEL_INVALID") << name;
  EXPECT_TRUE(absl::StrContains(status.message(), message)) << name << ": " << status.message();
}

TEST(ModelFolder, LoadsEveryLayout) {
  for (bool tied : {false, true}) {
    for (const char* semantics : {"dense", "causal_nsa"}) {
      TinyModel model;
      model.tied = tied;
      model.semantics = semantics;
      const TemporaryFolder folder;
      WriteModelFolder(model, folder);
      EXPECT_TRUE(LoadStatus(folder.path()).ok()) << LoadStatus(folder.path());
      SplitIntoShards(model, folder, /*new_names=*/false);
      EXPECT_TRUE(LoadStatus(folder.path()).ok()) << LoadStatus(folder.path());
      WriteModelFolder(model, folder);
      SplitIntoShards(model, folder, /*new_names=*/true);
      EXPECT_TRUE(LoadStatus(folder.path()).ok()) << LoadStatus(folder.path());
    }
  }
}

TEST(ModelFolder, DigestNamesTheContent) {
  CpuBackend backend(DType::kF32, 1);
  TinyModel model;
  const TemporaryFolder a, b;
  WriteModelFolder(model, a);
  WriteModelFolder(model, b);
  const auto first = Model::Load({a.path(), false, ""}, backend);
  const auto same = Model::Load({b.path(), false, ""}, backend);
  ASSERT_TRUE(first.ok() && same.ok());
  EXPECT_EQ((*first)->digest(), (*same)->digest());
  model.seed = 2;
  WriteModelFolder(model, b);
  const auto other = Model::Load({b.path(), false, ""}, backend);
  ASSERT_TRUE(other.ok());
  EXPECT_NE((*first)->digest(), (*other)->digest());
  EXPECT_FALSE((*first)->random_weights());
}

TEST(ModelFolder, DummyWeightsNeedOnlyAConfig) {
  CpuBackend backend(DType::kF32, 1);
  const TemporaryFolder folder;
  test::WriteFile(folder / "some.json", TinyModel{}.Config().dump());
  const auto model = Model::Load({"", true, folder / "some.json"}, backend);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE((*model)->random_weights());
}

struct BadTensors {
  const char* name;
  std::function<void(Tensors&)> change;
  const char* message;
};

TEST(ModelFolder, RefusesWrongTensors) {
  const char* const kUp = "model.layers.1.mlp.up_proj.weight";
  const auto put_u16 = [](FileTensor& tensor, size_t element, uint16_t bits) {
    tensor.bytes.replace(2 * element, 2, reinterpret_cast<const char*>(&bits), 2);
  };
  const BadTensors cases[] = {
      {"missing", [&](Tensors& t) { t.erase(kUp); }, "layers.1.mlp.up_proj.weight"},
      {"missing vision", [](Tensors& t) { t.erase("visual.merger.ln_q.weight"); },
       "visual.merger.ln_q.weight"},
      {"missing head", [](Tensors& t) { t.erase("lm_head.weight"); }, "lm_head.weight"},
      {"missing bias", [](Tensors& t) { t.erase("model.layers.0.self_attn.k_proj.bias"); },
       "layers.0.self_attn.k_proj.bias"},
      {"extra",
       [](Tensors& t) {
         t["model.layers.0.extra"] = {"BF16", {1}, "12"};
       },
       "model.layers.0.extra"},
      {"layer too many",
       [](Tensors& t) {
         t["model.layers.2.input_layernorm.weight"] = {"BF16", {1}, "12"};
       },
       "model.layers.2.input_layernorm.weight"},
      {"gates on a dense model",
       [](Tensors& t) {
         t["model.layers.0.self_attn.g_proj_1.bias"] = {"BF16", {1}, "12"};
       },
       "g_proj_1"},
      {"both layouts",
       [](Tensors& t) { t["model.language_model.norm.weight"] = t["model.norm.weight"]; },
       "norm.weight"},
      {"transposed", [&](Tensors& t) { std::swap(t[kUp].shape[0], t[kUp].shape[1]); },
       "[64, 96], expected [96, 64]"},
      {"rank", [&](Tensors& t) { t[kUp].shape = {96 * 64}; }, "[6144]"},
      {"type", [&](Tensors& t) { t[kUp].dtype = "I16"; }, "I16"},
      {"NaN", [&](Tensors& t) { put_u16(t[kUp], 77, 0x7FC0); }, "NaN or Inf at element 77"},
      {"Inf", [&](Tensors& t) { put_u16(t[kUp], 6143, 0xFF80); }, "NaN or Inf at element 6143"},
      {"NaN in a norm", [&](Tensors& t) { put_u16(t["model.norm.weight"], 0, 0x7F81); },
       "model.norm.weight"},
  };
  for (const BadTensors& bad : cases) {
    const TemporaryFolder folder;
    const TinyModel model;
    WriteModelFolder(model, folder);
    Tensors tensors = model.Tensors();
    bad.change(tensors);
    test::WriteFile(folder / "model.safetensors", test::SafetensorsBytes(tensors));
    ExpectRefused(folder, bad.name, bad.message);
  }
}

TEST(ModelFolder, RefusesNanInWiderTypes) {
  const TinyModel model;
  const TemporaryFolder folder;
  WriteModelFolder(model, folder);
  Tensors tensors = model.Tensors();
  FileTensor& norm = tensors["model.norm.weight"];
  norm.dtype = "F32";
  const float values[2] = {1, std::numeric_limits<float>::quiet_NaN()};
  norm.bytes = std::string(62 * 4, '\0') + std::string(reinterpret_cast<const char*>(values), 8);
  test::WriteFile(folder / "model.safetensors", test::SafetensorsBytes(tensors));
  ExpectRefused(folder, "F32", "NaN or Inf at element 63");
  norm.dtype = "F16";
  norm.bytes = std::string(126, '\0') + std::string("\x00\x7c", 2);
  test::WriteFile(folder / "model.safetensors", test::SafetensorsBytes(tensors));
  ExpectRefused(folder, "F16", "NaN or Inf at element 63");
}

TEST(ModelFolder, RefusesEveryMissingOrTruncatedFile) {
  const TinyModel model;
  for (const char* name :
       {"config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors"}) {
    for (bool truncate : {false, true}) {
      const TemporaryFolder folder;
      WriteModelFolder(model, folder);
      SplitIntoShards(model, folder, false);
      if (truncate) {
        const std::string bytes = test::ReadFile(folder / name);
        test::WriteFile(folder / name, bytes.substr(0, bytes.size() / 2));
      } else {
        std::filesystem::remove(folder / name);
      }
      // Without its index the folder looks like one with a single file.
      const bool no_index = !truncate && absl::EndsWith(name, "index.json");
      ExpectRefused(folder, name, no_index ? "model.safetensors" : name);
    }
  }
  const TemporaryFolder empty;
  ExpectRefused(empty, "empty folder", "config.json");
}

TEST(ModelFolder, RefusesHostileIndexes) {
  const TinyModel model;
  const char* const kNames[] = {
      "../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "."};
  for (const char* name : kNames) {
    const TemporaryFolder folder;
    WriteModelFolder(model, folder);
    test::WriteFile(folder / "model.safetensors.index.json",
                    nlohmann::json{{"weight_map", {{"model.norm.weight", name}}}}.dump());
    ExpectRefused(folder, name, "plain name");
  }
  const char* const kTexts[] = {"{}", R"({"weight_map":[]})", R"({"weight_map":{"a":5}})", "[]"};
  for (const char* text : kTexts) {
    const TemporaryFolder folder;
    WriteModelFolder(model, folder);
    test::WriteFile(folder / "model.safetensors.index.json", text);
    ExpectRefused(folder, text, "model.safetensors.index.json");
  }
}

TEST(ModelFolder, RefusesLinksThatLeaveIt) {
  const TinyModel model;
  const TemporaryFolder folder, elsewhere;
  WriteModelFolder(model, folder);
  WriteModelFolder(model, elsewhere);
  std::filesystem::remove(folder / "model.safetensors");
  std::filesystem::create_symlink(elsewhere / "model.safetensors", folder / "model.safetensors");
  ExpectRefused(folder, "link", "out of the model folder");
  std::filesystem::remove(folder / "model.safetensors");
  std::filesystem::create_directory(folder / "model.safetensors");
  ExpectRefused(folder, "folder", "not a regular file");
}

TEST(ModelFolder, RefusesAnIndexThatDisagreesWithItsShards) {
  const TinyModel model;
  const TemporaryFolder folder;
  WriteModelFolder(model, folder);
  SplitIntoShards(model, folder, false);
  auto index = nlohmann::json::parse(test::ReadFile(folder / "model.safetensors.index.json"));
  auto moved = index;
  moved["weight_map"]["model.norm.weight"] =
      index["weight_map"]["model.norm.weight"] == "model-00001-of-00002.safetensors"
          ? "model-00002-of-00002.safetensors"
          : "model-00001-of-00002.safetensors";
  test::WriteFile(folder / "model.safetensors.index.json", moved.dump());
  ExpectRefused(folder, "moved", "model.norm.weight");
  index["weight_map"].erase("model.norm.weight");
  test::WriteFile(folder / "model.safetensors.index.json", index.dump());
  ExpectRefused(folder, "unlisted", "not in the index");
}

}  // namespace
}  // namespace videonsa
