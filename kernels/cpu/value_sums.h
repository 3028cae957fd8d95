#pragma once

#include "kernels/attention/paged_kv.h"
#include "kernels/common/thread_pool.h"

namespace videonsa {

/// Sums of the values of a sequence up to every block border, for means over any range of
/// positions.
///
/// Shapes: all, kept [num_blocks + 1, num_kv_heads, head_dim]; entry b sums positions below 64 b,
///         `kept` only those marked 1
struct ValueSums {
  double* all = nullptr;
  double* kept = nullptr;
  const uint8_t* keep = nullptr;  ///< [num_rows]
  int num_rows = 0;

  static int64_t Doubles(int num_rows, int num_kv_heads, int head_dim) {
    return (int64_t{(num_rows + kKvPageTokens - 1) / kKvPageTokens} + 1) * num_kv_heads * head_dim;
  }
};

/// Fills `sums.all` and `sums.kept`.
void SumValues(const PagedKv& kv, const ValueSums& sums, ThreadPool& pool);

/// Adds the kept values of positions [begin, end) to sum[head_dim].
void AddKeptRange(const PagedKv& kv, const ValueSums& sums, int kv_head, int begin, int end,
                  double* sum);

/// Adds the mean of the values of all positions [0, position] to the rows of the query heads of
/// `kv_head`, for each position of a list: the dense pass of released_nsa's vision rows (quirk Q7).
///
/// Shapes: positions [count] ascending; out rows are positions
void AddRunningMeans(const PagedKv& kv, const ValueSums& sums, int kv_head,
                     const int32_t* positions, int count, int heads_per_kv_head, float* out,
                     int64_t out_row_stride);

}  // namespace videonsa
