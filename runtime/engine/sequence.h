#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/engine/request.h"
#include "runtime/engine/scheduler.h"
#include "runtime/kv/kv_budget.h"
#include "runtime/kv/page_table.h"

namespace videonsa {

/// Where a sequence stands. Transitions:
///
///   kWaitingMedia -> kWaiting    prompt ready
///   kWaiting      -> kPrefill    admitted: pages and bytes reserved
///   kPrefill      -> kDecode     first token sampled in this stay
///   kPrefill      -> kWaiting    preempted: pages and bytes given back
///   kDecode       -> kWaiting    the same
///   any of these  -> kFinished   ended: answer complete, cancelled, expired, failed
enum class SequencePhase { kWaitingMedia, kWaiting, kPrefill, kDecode, kFinished };

const char* PhaseName(SequencePhase phase);

/// Whether the table above has an edge `from` -> `to`.
bool MayFollow(SequencePhase from, SequencePhase to);

/// Mutable progress of one request.
///
/// Owner: engine thread only.
/// Invariants: I6 phases follow the table. I7 `in_flight` counts submitted steps that name the
///             sequence; its pages are given back only when it is zero.
struct Sequence {
  explicit Sequence(Request r) : request(std::move(r)) {}

  SequencePhase phase() const { return phase_; }
  /// Moves to `next`; a step that the table does not have is our bug (I6).
  void SetPhase(SequencePhase next);

  SequenceId id() const { return SequenceId{request.id.value}; }
  bool layerwise() const { return layerwise_; }
  int prompt_len() const { return prompt_len_; }
  /// Takes the prompt in. Requires: phase kWaitingMedia.
  void SetPrompt(std::unique_ptr<PreparedPrompt> ready);
  /// The next slice needs patches that are not ready.
  bool WaitsForPatches() const {
    return !visuals_left.empty() && visuals_left.front().t_ready <= visuals_left.front().t_begin;
  }
  /// Frees the patches of its visuals and stops whoever makes more.
  void CloseVisuals();
  /// Notes what the visuals' sources have cost in `prompt->result`.
  void TakeMediaCosts();
  /// Goes back to the state before admission, keeping what was sampled; closes the visuals and
  /// opens them anew. Requires: phase kWaiting, its pages are given back.
  void EndStay();
  /// Whether it may be put back in the queue: its visuals can be had again, and it has sampled a
  /// token since it last was, which happened less than `max_preemptions` times (I15).
  bool MayBePreempted(int max_preemptions) const;
  /// Answer tokens of earlier stays whose rows are not planned in this one.
  int ReplayLeft() const { return kept_tokens == 0 ? 0 : kept_tokens - 1 - next_replay; }

  const Request request;
  std::unique_ptr<PreparedPrompt> prompt;  ///< set when kWaitingMedia ends

  // Set at admission.
  KvNeed need;
  PageTable pages;
  int cached_tokens = 0;
  int pages_reserved = 0;  ///< kept for the report after the pages are gone

  int bypassed = 0;  ///< times that a later request was admitted while this one did not fit

  // Progress as planned: counts slices that are submitted but not yet done.
  std::vector<SequenceView::VisualView> visuals_left;  ///< not planned yet, in order
  int next_token = 0;                                  ///< prompt tokens planned
  int next_layer = 0;  ///< layer-wise prefill: layers planned for all tokens
  bool prompt_planned = false;
  int next_replay = 0;      ///< answer tokens of earlier stays whose rows are planned again
  int planned_outputs = 0;  ///< answer tokens sampled or to be sampled by submitted steps
  int in_flight = 0;
  int tokens_owed = 0;  ///< by the step whose result is being looked at (I10)

  // A stay is the time from admission to the end or to a preemption.
  int preemptions = 0;
  int kept_tokens = 0;        ///< answer tokens sampled in earlier stays; set at admission
  int tokens_at_leaving = 0;  ///< answer tokens when it was last preempted
  bool leaving = false;       ///< chosen, not planned any more; its pages come back with its steps
  int release_lane = -1;      ///< worker that has not said yet that it forgot the last stay
  int victims_lane = -1;      ///< worker where others leave for this one, which waits
  AttentionAccount account;   ///< of earlier stays
  absl::Duration preempted_time;  ///< from leaving to the next token, summed
  absl::Duration leave_time = -absl::InfiniteDuration();

  int lane = -1;                 ///< index of the worker that it runs on, once admitted
  double vision_seconds = 0;     ///< predicted, of all visuals; set when ready
  double rank = 0;               ///< WaitingOrder::RankOf; set when ready
  double prefill_left = 0;       ///< predicted prefill seconds that are not planned yet
  double prefill_seconds = 0;    ///< predicted until the first token, idle worker; set when ready
  double predicted_seconds = 0;  ///< the same for the whole request
  double service = 0;            ///< prefill seconds received, by weight (start-time fair)

  // Answer as sampled.
  int output_tokens = 0;
  std::vector<int32_t> output_ids;
  bool ended_by_stop_token = false;
  int reused_visuals = 0;
  int reused_tokens = 0;  ///< prompt tokens that the first stay found in pages

  // How it ended; set once when the phase becomes kFinished.
  absl::Status end_status;
  FinishReason finish_reason = FinishReason::kStop;
  bool finish_sent = false;

  // Instants on the monotonic clock; infinite past until they happen.
  absl::Duration ready_time = -absl::InfiniteDuration();
  absl::Duration admit_time = -absl::InfiniteDuration();
  absl::Duration first_token_time = -absl::InfiniteDuration();
  absl::Duration last_token_time = -absl::InfiniteDuration();
  absl::Duration vision_end_time = -absl::InfiniteDuration();

 private:
  SequencePhase phase_ = SequencePhase::kWaitingMedia;
  int prompt_len_ = 0;
  bool layerwise_ = false;
};

}  // namespace videonsa
