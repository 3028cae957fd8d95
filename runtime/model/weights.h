#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/config.h"
#include "runtime/model/model_shard.h"
#include "runtime/ops/backend.h"

namespace videonsa {

/// Weights of one block of the vision tower.
struct VisionBlockWeights {
  VectorWeights norm1;
  VectorWeights norm2;
  std::unique_ptr<LinearWeights> qkv;
  std::unique_ptr<LinearWeights> proj;
  std::unique_ptr<LinearWeights> gate;
  std::unique_ptr<LinearWeights> up;
  std::unique_ptr<LinearWeights> down;
};

struct VisionWeights {
  std::unique_ptr<LinearWeights> patch_embed;
  std::vector<VisionBlockWeights> blocks;
  VectorWeights merger_norm;
  std::unique_ptr<LinearWeights> merger_in;
  std::unique_ptr<LinearWeights> merger_out;
};

/// Weights of one decoder layer, a rank's part of them (ModelShard). q, k and v are one matrix;
/// gates are null for dense checkpoints.
struct DecoderLayerWeights {
  VectorWeights input_norm;
  VectorWeights post_attention_norm;
  std::unique_ptr<LinearWeights> qkv;
  std::unique_ptr<LinearWeights> o;
  std::unique_ptr<LinearWeights> gate;
  std::unique_ptr<LinearWeights> up;
  std::unique_ptr<LinearWeights> down;
  std::unique_ptr<LinearWeights> branch_gate_in;   ///< g_proj_1
  std::unique_ptr<LinearWeights> branch_gate_out;  ///< g_proj_2
};

/// Everything a model computes with, arranged by a backend.
struct ModelWeights {
  VisionWeights vision;
  std::vector<DecoderLayerWeights> layers;
  VectorWeights final_norm;
  std::unique_ptr<LinearWeights> embedding;
  /// A rank's part of the vocabulary. Null: the whole head is tied to the embedding.
  std::unique_ptr<LinearWeights> lm_head;

  const LinearWeights& head() const { return lm_head ? *lm_head : *embedding; }
};

/// Hears how many of the blocks and layers have been loaded.
using LoadProgress = std::function<void(int done, int total)>;

/// Loads exactly the tensors that `config` needs, with gates if it was trained with them; of those
/// that ranks divide, only the shard's part is read.
///
/// Errors: MODEL_INVALID names the file and tensor: missing, extra, wrong shape, wrong type, NaN or
///         Inf. RESOURCE_EXHAUSTED if the memory does not suffice.
absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const ModelShard& shard,
                                         WeightSource& source, Backend& backend,
                                         const LoadProgress& progress);

}  // namespace videonsa
