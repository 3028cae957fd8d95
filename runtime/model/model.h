#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/base/hash.h"
#include "runtime/model/config.h"
#include "runtime/model/language_model.h"
#include "runtime/model/model_shard.h"
#include "runtime/model/vision_tower.h"
#include "runtime/model/weights.h"
#include "runtime/ops/backend.h"

namespace videonsa {

/// Where a model comes from.
struct ModelSource {
  std::string dir;          ///< model folder
  bool dummy = false;       ///< random weights instead of the folder's
  std::string config_path;  ///< with dummy: a config.json outside of any folder; empty: dir's
  LoadProgress progress;    ///< may be empty
  ModelShard shard;         ///< the part that this rank loads; its group outlives the model
  bool digest = true;       ///< whether anybody will ask for the identity of the files
};

/// A loaded network: configuration, weights and the modules over them.
///
/// Lifetime: the backend outlives the model.
class Model {
 public:
  /// Errors: MODEL_INVALID, RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const ModelSource& source, Backend& backend);

  const ModelConfig& config() const { return config_; }  ///< of the whole model
  const ModelShard& shard() const { return shard_; }
  LanguageModel& language() { return *language_; }
  VisionTower& vision() { return *vision_; }
  bool random_weights() const { return random_weights_; }
  /// Identity of the files; all zero for random weights, or if nobody asked for it.
  const Sha256Digest& digest() const { return digest_; }

 private:
  Model() = default;

  ModelConfig config_;
  ModelShard shard_;
  ModelWeights weights_;
  Sha256Digest digest_{};
  bool random_weights_ = false;
  std::unique_ptr<LanguageModel> language_;
  std::unique_ptr<VisionTower> vision_;
};

}  // namespace videonsa
