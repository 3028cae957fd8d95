#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/hash.h"
#include "runtime/device/tensor_view.h"
#include "runtime/model/safetensors.h"

namespace videonsa {

/// Consecutive rows or columns of a tensor seen as [shape[0], product of the rest].
struct TensorSlice {
  int axis = 0;  ///< 0: rows, 1: columns
  int64_t begin = 0;
  int64_t end = -1;  ///< -1: to the last
};

/// Where the tensors of a model come from, by canonical name: the names of the published layouts
/// without their prefixes ("visual.patch_embed.proj.weight", "layers.0.mlp.up_proj.weight",
/// "embed_tokens.weight", "norm.weight", "lm_head.weight").
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// The slice of the tensor of this shape. Errors: MODEL_INVALID if the tensor is missing, of
  /// another shape or type, or if the slice holds NaN or Inf. Valid until Release().
  virtual absl::StatusOr<TensorView> Load(const std::string& name,
                                          const std::vector<int64_t>& shape,
                                          const TensorSlice& slice) = 0;
  virtual bool Has(const std::string& name) const = 0;
  /// Forgets what Load returned.
  virtual void Release() {}
  /// MODEL_INVALID if the source holds a tensor that was never loaded.
  virtual absl::Status CheckAllLoaded() const { return absl::OkStatus(); }
};

/// The safetensors files of a model folder: model.safetensors.index.json with its shards, or a
/// single model.safetensors.
class Checkpoint : public WeightSource {
 public:
  /// Errors: MODEL_INVALID (also for a name in the index that is no plain file name, a tensor
  /// missing in its shard, or one that the index does not know).
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& dir);

  absl::StatusOr<TensorView> Load(const std::string& name, const std::vector<int64_t>& shape,
                                  const TensorSlice& slice) override;
  bool Has(const std::string& name) const override { return tensors_.count(name) != 0; }
  absl::Status CheckAllLoaded() const override;

  /// SHA-256 over names, sizes and contents of config.json and all shards, in order of name.
  absl::StatusOr<Sha256Digest> Digest(const std::string& dir) const;

 private:
  struct Place {
    const SafetensorsFile* file;
    const TensorEntry* entry;
    std::string file_name;  // the tensor's name in the file
  };

  Checkpoint() = default;
  absl::Status OpenIndexed(const std::string& dir);
  absl::Status AddFile(const std::string& dir, const std::string& name);
  absl::Status AddTensor(const SafetensorsFile& file, const std::string& name,
                         const TensorEntry& entry);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> tensors_;  // by canonical name
  std::set<std::string> loaded_;
};

/// Random weights of any shape: linear weights uniform with deviation 0.02, biases 0, norms 1. The
/// same name and shape give the same values.
class DummyWeights : public WeightSource {
 public:
  /// `on_device`: shapes without data, for a backend that makes the values.
  explicit DummyWeights(bool on_device) : on_device_(on_device) {}
  absl::StatusOr<TensorView> Load(const std::string& name, const std::vector<int64_t>& shape,
                                  const TensorSlice& slice) override;
  bool Has(const std::string& name) const override { return false; }  // nothing optional
  void Release() override { buffers_.clear(); }

 private:
  const bool on_device_;
  std::deque<std::vector<uint16_t>> buffers_;
};

/// Canonical name of a tensor of either published layout.
std::string CanonicalName(const std::string& file_name);

}  // namespace videonsa
