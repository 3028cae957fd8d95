#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "runtime/api/generate_request.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// A running sequence that may be put back in the queue, as ChooseVictims sees it.
struct VictimView {
  SequenceId id;
  Priority priority = Priority::kStandard;
  double lost_seconds = 0;  ///< predicted work that would have to be done again
  int64_t hidden_bytes = 0;
  absl::Span<const int32_t> pages;  ///< outlives the call
};

/// What a request lacks on one worker; nothing if a number is not above zero.
struct Shortage {
  int pages = 0;
  int64_t hidden_bytes = 0;
  int slots = 0;  ///< running sequences

  bool any() const { return pages > 0 || hidden_bytes > 0 || slots > 0; }
};

/// Decides who leaves for a request of `priority`: a pure function of its arguments.
///
/// Only sequences of lower classes: the lowest class first, in it those that lose least work;
/// then nobody who is not needed. Empty if all of them together would not do: nobody leaves for
/// a request that could not start all the same. A page comes back when none but the prefix index
/// holds it any more: `holders` says how many others do, 1 or more, for pages below `num_pages`.
std::vector<SequenceId> ChooseVictims(std::vector<VictimView> running, const Shortage& shortage,
                                      Priority priority, int num_pages,
                                      absl::FunctionRef<int(int32_t)> holders);

}  // namespace videonsa
