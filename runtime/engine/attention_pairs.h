#pragma once

#include <cstdint>
#include <vector>

#include "runtime/api/attention_account.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// Which prompt rows are vision rows, one entry a token (attention.md section 1): by token id in
/// `causal_nsa` (every pad), by position in `released_nsa` (a row whose three coordinates agree is
/// text, the first pad of every visual among them).
///
/// Requires: positions holds 3 * token_ids.size() values.
std::vector<uint8_t> VisionRows(const SequenceSpec& spec);

/// Query-key pairs of one layer that a prompt will score, per query head.
struct PairForecast {
  BranchPairs pairs;        ///< whole prompt
  int64_t dense_pairs = 0;  ///< what causal attention would score
  /// Pairs scored by rows [0, 64 * (i + 1)), for the cost of a token range.
  std::vector<int64_t> cumulative;

  double budget_fraction() const {
    return dense_pairs == 0 ? 1.0 : static_cast<double>(pairs.total()) / dense_pairs;
  }
  /// Pairs of rows [begin, end), to the nearest 64 rows.
  int64_t Between(int64_t begin, int64_t end) const;
};

/// Predicts the account of a prompt with `vision_rows` under `attention`, exactly for `dense` and
/// `causal_nsa`. For `released_nsa` the selection count is an upper bound: its choice may leave the
/// own block out (section 4, step 4). Training-free patterns choose from the data: they count as
/// dense, the most that they can score.
/// Source: attention.md sections 3, 4 and 6.
PairForecast ForecastPairs(const std::vector<uint8_t>& vision_rows,
                           const AttentionSettings& attention);

}  // namespace videonsa
