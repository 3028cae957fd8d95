#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/executor/executor_factory.h"
#include "runtime/executor/feature_cache.h"
#include "runtime/executor/kv_storage.h"
#include "runtime/executor/sampler.h"
#include "runtime/executor/sequence_state.h"
#include "runtime/model/model.h"
#include "runtime/ops/backend.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Runs step plans on one device, whatever its kind: what differs lies below Backend.
///
/// Slices of a plan run one after the other, decode rows of all sequences as one batch. A row's
/// numbers depend on its own sequence only, never on what else is in the plan (on a CPU bit for
/// bit).
/// Owner: one worker thread calls everything but info().
class ModelExecutor : public Executor {
 public:
  /// With a shard it runs one rank's part of each step, and info() tells of this rank; all ranks of
  /// the group get the same calls (TensorParallelExecutor). `options` are the rank's.
  static absl::StatusOr<std::unique_ptr<ModelExecutor>> Create(const ExecutorOptions& options,
                                                               const ModelShard& shard = {});

  const ExecutorInfo& info() const override { return info_; }
  absl::Status AddSequence(SequenceSpec spec) override;
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;
  AttentionAccount Account(SequenceId sequence) const override;
  void ReleaseSequence(SequenceId sequence) override;

  const Model& model() const { return *model_; }
  Model& model() { return *model_; }
  Backend& backend() { return *backend_; }
  /// Sees the intermediate values of a sequence's prefill from now on (goldens). Of several ranks
  /// all are observed or none: what is observed is computed to the end.
  void Observe(SequenceId sequence, ForwardObserver* observer);
  /// Finished features of a visual, or null.
  const VisualFeatures* Features(SequenceId sequence, int visual_idx) const;

 private:
  ModelExecutor() = default;
  absl::Status Setup(const ExecutorOptions& options, const ModelShard& shard);
  absl::Status FillInfo(const ExecutorOptions& options);
  absl::Status SizePages(const ExecutorOptions& options);
  absl::Status ReserveWorkspaces(const ExecutorOptions& options);
  absl::Status CheckShard(AttentionSemantics semantics) const;
  absl::Status ReserveSequence(SequenceState& state);
  SequenceState& Find(SequenceId id);

  // Each returns false if the sequence was cancelled on the way.
  bool RunVision(const VisionSlice& slice, StepResult& result);
  bool Encode(const VisionInput& input, const TensorView& rows, const std::atomic<bool>* cancelled);
  bool RunPrefill(const PrefillSlice& slice);
  bool PrefillChunk(SequenceState& state, int begin, int end);
  bool PrefillWhole(SequenceState& state, int layer_begin, int layer_end);
  // Decode rows, then replayed ones, together in passes of decode_rows_.
  void RunDecode(const StepPlan& plan, StepResult& result);
  // A token that goes through all layers by itself.
  struct AnswerRow {
    SequenceState* state;
    int fed;        // answer tokens before it
    bool replayed;  // nothing is sampled from it
  };
  void AddReplay(const ReplaySlice& slice, std::vector<AnswerRow>& rows, StepResult& result);
  void DecodeBatch(absl::Span<const AnswerRow> batch);

  // Embeds prompt rows [begin, end) and puts features over pads.
  void EmbedPrompt(SequenceState& state, int begin, int end, const TensorView& hidden);
  void PromptAngles(SequenceState& state, int begin, const RopeTable& table);
  PagedKv LayerPages(int layer) const { return kv_->Layer(layer, uploaded_pages_); }
  // Uploads what every layer of the sequence's prefill reads.
  void UploadPrompt(SequenceState& state);
  void DropUsedFeatures(SequenceState& state, int end);
  // Samples from the last hidden row of each sequence; the tokens are there when the step ends.
  void Sample(const TensorView& hidden, const std::vector<SequenceState*>& sequences);
  void TakeTokens(StepResult& result);
  DeviceUse UseOfDevice();

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  ExecutorInfo info_;
  std::unique_ptr<KvStorage> kv_;
  std::unique_ptr<FeatureCache> feature_cache_;
  std::unique_ptr<Sampler> sampler_;
  std::map<SequenceId, std::unique_ptr<SequenceState>> sequences_;
  int max_rows_ = 0;
  int decode_rows_ = 0;  // of one pass
  int64_t weight_bytes_ = 0;

  // Of one step.
  struct Pending {
    SequenceState* sequence;
    SampleTask task;
  };
  std::deque<Pending> pending_;  // tasks are lent until the step ends
  std::vector<SampleTask*> tasks_;
  const int32_t* uploaded_pages_ = nullptr;

  // Matrices of one call, sized for max_rows_.
  Workspace workspace_;
  TensorView hidden_;
  RopeTable angles_;
  TensorView logits_;
  std::vector<int32_t> ids_, positions_, kv_lens_;
  std::vector<const int32_t*> page_tables_;
};

}  // namespace videonsa
