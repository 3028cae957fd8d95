#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/engine/request.h"
#include "runtime/engine/sequence.h"
#include "runtime/kv/kv_budget.h"
#include "runtime/kv/page_pool.h"
#include "runtime/kv/prefix_index.h"
#include "runtime/kv/session_pins.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// What `prompt` will hold with every token it may produce.
KvNeed NeedOf(const PreparedPrompt& prompt, const ExecutorInfo& info);

/// Slices that the prompt's prefill is cut into when a step has room for `step_tokens` of it; one
/// if it is cut by layers, each of which counts as its share.
double NumPrefillSlices(const PreparedPrompt& prompt, int step_tokens);

/// Refuses with numbers what could not run even alone on a worker with `hidden_bytes` for
/// layer-wise prefills. Errors: INVALID_ARGUMENT (CONTEXT_TOO_LONG), RESOURCE_EXHAUSTED
/// (KV_TOO_SMALL).
absl::Status CheckFits(const PreparedPrompt& prompt, const ExecutorInfo& info,
                       int64_t hidden_bytes);

/// Whether a sequence may start: everything it can ever hold is reserved at once, so nothing runs
/// out of memory later and nobody is thrown out to make room.
///
/// Owner: engine thread only.
/// Invariants: I8 an admitted sequence holds exactly its need until it is released.
class AdmissionPolicy {
 public:
  /// `hidden_bytes` bounds the rows that layer-wise prefills keep between steps, `pins` the pages
  /// that sessions keep.
  AdmissionPolicy(const ExecutorInfo& info, int64_t hidden_bytes,
                  const SessionPins::Limits& pins = {});

  /// Reserves the sequence's need, sharing known pages, dropping cached ones if it must; false if
  /// there is not enough now. Sessions lose their pages, the longest unused first, only to a
  /// sequence that could not run beside them even alone.
  bool TryAdmit(Sequence& sequence);

  /// Takes back what TryAdmit reserved. Requires: no submitted step names the sequence (I7).
  void Release(Sequence& sequence);

  /// Records the full pages of a prefilled prompt for reuse by later requests, and holds them for
  /// the request's session.
  void Publish(const Sequence& sequence);
  /// The same for the pages that the answer of a session's request has filled since.
  /// Requires: no submitted step names the sequence.
  void PublishAnswer(Sequence& sequence);
  /// Lets a session's pages go.
  void Unpin(SessionId session) { pins_.Drop(session.value); }
  /// Whether a session of `tenant` could hold all pages of `prompt` now.
  bool CanPin(const PreparedPrompt& prompt, const std::string& tenant);

  const PagePool& pool() const { return pool_; }
  const PrefixIndex& index() const { return index_; }
  const ByteBudget& hidden() const { return hidden_; }
  const SessionPins& pins() const { return pins_; }
  /// Cached pages dropped so far to make room.
  int64_t num_evicted() const { return num_evicted_; }

 private:
  void MakeRoom(int pages, const std::vector<int32_t>& shared);
  void HoldForSession(const Sequence& sequence);

  const ExecutorInfo info_;
  PagePool pool_;
  PrefixIndex index_;
  SessionPins pins_;
  ByteBudget hidden_;
  int64_t num_evicted_ = 0;
};

}  // namespace videonsa
