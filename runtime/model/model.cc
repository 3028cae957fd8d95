#include "runtime/model/model.h"

#include <utility>

#include "runtime/base/status_macros.h"
#include "runtime/model/checkpoint.h"

namespace videonsa {

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const ModelSource& source, Backend& backend) {
  std::unique_ptr<Model> model(new Model());
  VNSA_ASSIGN_OR_RETURN(model->config_, source.config_path.empty()
                                            ? LoadModelConfig(source.dir)
                                            : LoadModelConfigFile(source.config_path));
  model->shard_ = source.shard;
  model->random_weights_ = source.dummy;
  if (source.dummy) {
    DummyWeights weights(backend.MakesRandomWeights());
    VNSA_ASSIGN_OR_RETURN(model->weights_, LoadWeights(model->config_, source.shard, weights,
                                                       backend, source.progress));
  } else {
    VNSA_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                          Checkpoint::Open(source.dir));
    VNSA_ASSIGN_OR_RETURN(model->weights_, LoadWeights(model->config_, source.shard, *checkpoint,
                                                       backend, source.progress));
    if (source.digest) {
      VNSA_ASSIGN_OR_RETURN(model->digest_, checkpoint->Digest(source.dir));
    }
  }
  model->language_ =
      std::make_unique<LanguageModel>(model->config_, source.shard, model->weights_, backend);
  model->vision_ =
      std::make_unique<VisionTower>(model->config_.vision, model->weights_.vision, backend);
  return model;
}

}  // namespace videonsa
