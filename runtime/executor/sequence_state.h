#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/executor/feature_cache.h"
#include "runtime/model/config.h"
#include "runtime/model/language_model.h"
#include "runtime/ops/attention.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Buffers of a prompt that is prefilled layer by layer.
struct WholePromptState {
  DeviceBuffer buffer;
  LanguageModel::WholePrompt views;
  int next_layer = 0;
};

/// Mutable progress of one sequence on this device.
///
/// Owner: the worker thread.
struct SequenceState {
  SequenceSpec spec;
  std::vector<uint8_t> is_vision;                         ///< [prompt]
  std::vector<std::shared_ptr<VisualFeatures>> features;  ///< by visual; null once used up
  std::unique_ptr<WholePromptState> whole;  ///< set for semantics that need the whole prompt
  int prefilled = 0;                        ///< prompt rows whose last layer is done
  int num_sampled = 0;                      ///< tokens sampled so far, in earlier stays too
  int replayed = 0;                         ///< answer rows of an earlier stay that have run again
  int32_t last_token = 0;
  std::vector<int32_t> seen;    ///< distinct ids of prompt and answer, if a penalty needs them
  std::vector<bool> seen_mask;  ///< [vocab], as above
  PrefillContext context;
  std::vector<AttentionTally> tallies;  ///< by layer
  int64_t dense_pairs = 0;

  int prompt_length() const { return static_cast<int>(spec.token_ids.size()); }
  /// The last token of the answer so far has no row yet.
  int rows_to_replay() const {
    return spec.answer_ids.empty() ? 0 : static_cast<int>(spec.answer_ids.size()) - 1;
  }
  bool cancelled() const {
    return spec.cancelled != nullptr && spec.cancelled->load(std::memory_order_relaxed);
  }
  void MarkSeen(int32_t token);
};

/// Checks a spec against the model. INVALID_ARGUMENT (SEQUENCE_INVALID, PROMPT_TOO_LONG,
/// ATTENTION_UNSUPPORTED) with the numbers.
absl::Status CheckSequence(const SequenceSpec& spec, const ModelConfig& config,
                           const ExecutorInfo& info);

/// Whether the checkpoint can run `semantics`; OK or the reason.
absl::Status CheckSemantics(AttentionSemantics semantics, const ModelConfig& config);

/// State of a sequence that CheckSequence accepted, without buffers and features.
std::unique_ptr<SequenceState> MakeSequenceState(SequenceSpec spec, const ModelConfig& config);

/// The account as the engine sees it.
AttentionAccount AccountOf(const SequenceState& state, int num_q_heads);

}  // namespace videonsa
