#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace videonsa::test {

/// One tensor for WriteSafetensors.
struct FileTensor {
  std::string dtype = "BF16";
  std::vector<int64_t> shape;
  std::string bytes;
};

/// A .safetensors file with `tensors` in order of name.
std::string SafetensorsBytes(const std::map<std::string, FileTensor>& tensors);

/// Writes `bytes` to `path`, replacing what was there.
void WriteFile(const std::string& path, const std::string& bytes);
std::string ReadFile(const std::string& path);

/// A model small enough to run thousands of tokens in a test.
struct TinyModel {
  int layers = 2;
  int hidden = 64;
  int intermediate = 96;
  int q_heads = 4;
  int kv_heads = 2;
  int head_dim = 16;
  int vocab = 160;
  int vision_depth = 2;
  int vision_hidden = 32;
  int vision_heads = 2;
  int vision_intermediate = 48;
  std::string semantics = "dense";  ///< "dense", "causal_nsa" or "released_nsa"
  int selected_blocks = 2;
  int window_tokens = 32;
  bool tied = false;
  uint64_t seed = 1;

  nlohmann::json Config() const;
  /// Random bf16 weights under the older names ("model.layers.0…").
  std::map<std::string, FileTensor> Tensors() const;
};

/// Special ids of every TinyModel.
inline constexpr int32_t kImagePad = 150;
inline constexpr int32_t kVideoPad = 151;
inline constexpr int32_t kVisionStart = 152;
inline constexpr int32_t kVisionEnd = 153;
inline constexpr int32_t kStop = 154;

/// A folder below the test's temporary directory, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// Writes config.json, generation_config.json and model.safetensors of `model` into `folder`.
void WriteModelFolder(const TinyModel& model, const TemporaryFolder& folder);

/// WriteModelFolder, and the small tokenizer of tests/data beside it, so that a server can load it.
/// Requires: model.vocab >= 1024.
void WriteServingFolder(const TinyModel& model, const TemporaryFolder& folder);

/// Moves the tensors of a single-file folder into two shards with an index, under the newer names
/// if `new_names`.
void SplitIntoShards(const TinyModel& model, const TemporaryFolder& folder, bool new_names);

}  // namespace videonsa::test
