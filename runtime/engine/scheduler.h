#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/engine/attention_pairs.h"
#include "runtime/engine/cost_model.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// One admitted sequence as the scheduler sees it: a snapshot, progress as planned.
struct SequenceView {
  SequenceId id;
  bool decode = false;    ///< else prefill or replay
  int64_t kv_tokens = 0;  ///< decode and replay: length of the cache
  int replay_begin = 0;   ///< answer tokens [begin, end) are to be run again; the prompt is planned
  int replay_end = 0;

  // Prefill only.
  int prompt_tokens = 0;
  int next_token = 0;
  int num_layers = 0;
  int next_layer = 0;
  bool layerwise = false;
  const PairForecast* forecast = nullptr;  ///< outlives the call
  /// Visuals left to encode, in order; t counts temporal patches.
  struct VisualView {
    int visual_idx = 0;
    int t_begin = 0;
    int t_end = 0;
    int t_ready = 0;  ///< rows of [t_begin, t_ready) can be taken now
    int64_t patches_per_t = 0;
  };
  absl::Span<const VisualView> visuals;
  double rank = 0;     ///< the lowest goes first
  double service = 0;  ///< seconds of prefill received so far, divided by weight
};

/// Limits of one step.
struct StepBudget {
  double seconds = 0.25;  ///< predicted; what running answers wait for one step of prefills
  /// Prefills may take this multiple of the predicted decode time even when `seconds` is less, so
  /// that they are never slowed by more than its inverse.
  double min_prefill_to_decode = 7;
  int prefill_tokens = 512;  ///< token-cut slices together
  /// This step's prefills: the one that has received least goes first, instead of the best ranked.
  bool by_service = false;
};

/// A plan with what it is predicted to cost.
struct PlannedStep {
  StepPlan plan;  ///< `step` is left to the caller
  StepWork work;
  double seconds = 0;
  bool full = false;  ///< more prefill work would not have fitted
  /// Predicted seconds of each prefill, vision or replay slice, by sequence, in plan order.
  std::vector<std::pair<SequenceId, double>> charges;
};

/// Decides the next step: a pure function of its arguments.
///
/// Every decode row takes part. Prefills then share the rest of the budget: the one with the
/// lowest rank (or that has received least, StepBudget::by_service) takes as much as fits, the next
/// ones fill what is left. The first that can move always moves by one unit (a page of tokens, a
/// layer, a temporal patch, a row that is replayed), so that nobody starves behind a budget too
/// small. One whose next patches are not ready waits. Replayed rows cost what decode rows cost and
/// count as prefill tokens.
///
/// Requires: views of sequences that no submitted step prefills.
PlannedStep PlanStep(absl::Span<const SequenceView> running, const StepBudget& budget,
                     const CostModel& cost);

}  // namespace videonsa
