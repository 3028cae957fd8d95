#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/engine/request.h"
#include "runtime/engine/sequence.h"
#include "runtime/kv/kv_budget.h"
#include "runtime/kv/page_pool.h"
#include "runtime/kv/prefix_index.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// What `prompt` will hold with every token it may produce.
KvNeed NeedOf(const PreparedPrompt& prompt, const ExecutorInfo& info);

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
  /// `hidden_bytes` bounds the rows that layer-wise prefills keep between steps.
  AdmissionPolicy(const ExecutorInfo& info, int64_t hidden_bytes);

  /// Reserves the sequence's need, sharing known pages, dropping cached ones if it must; false if
  /// there is not enough now.
  bool TryAdmit(Sequence& sequence);

  /// Takes back what TryAdmit reserved. Requires: no submitted step names the sequence (I7).
  void Release(Sequence& sequence);

  /// Records the full pages of a prefilled prompt for reuse by later requests.
  void Publish(const Sequence& sequence);

  const PagePool& pool() const { return pool_; }
  const PrefixIndex& index() const { return index_; }
  const ByteBudget& hidden() const { return hidden_; }
  /// Cached pages dropped so far to make room.
  int64_t num_evicted() const { return num_evicted_; }

 private:
  const ExecutorInfo info_;
  PagePool pool_;
  PrefixIndex index_;
  ByteBudget hidden_;
  int64_t num_evicted_ = 0;
};

}  // namespace videonsa
