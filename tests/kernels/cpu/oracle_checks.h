#pragma once

#include <algorithm>
#include <vector>

#include "kernels/reference/causal_nsa.h"
#include "kernels/reference/released_nsa.h"
#include "tests/kernels/cpu/causal_harness.h"
#include "tests/kernels/cpu/kv_fixture.h"
#include "tests/kernels/cpu/released_harness.h"

namespace videonsa {

/// A choice is compared where the oracle's margin is wider than this (or exactly 0 in
/// released_nsa).
inline constexpr double kChoiceMargin = 1e-5;

/// Every row of a sequence, or every `step`-th and the last.
inline std::vector<int> RowsOf(int len, int step = 1) {
  std::vector<int> rows;
  for (int row = 0; row < len; row += step) rows.push_back(row);
  if (rows.back() != len - 1) rows.push_back(len - 1);
  return rows;
}

/// The account of all rows, counted key by key from the chosen lists.
inline void ExpectCausalAccount(const reference::AttentionCase& c, const CausalOutput& out) {
  NsaPairs pairs;
  for (int row = 0; row < c.len; ++row) {
    for (int j = 0; j <= row; ++j) {
      if (!c.is_vision[row]) {
        ++pairs.dense;
        continue;
      }
      const auto begin = out.blocks.begin() + int64_t{row} * c.num_kv_heads * c.block_count;
      pairs.selected += std::find(begin, begin + c.block_count, j / 64) != begin + c.block_count;
      pairs.window += j > row - c.window;
      pairs.compressed += j % 64 == 63;  // the block that ends here is complete
    }
  }
  EXPECT_EQ(out.pairs.compressed, pairs.compressed);
  EXPECT_EQ(out.pairs.selected, pairs.selected);
  EXPECT_EQ(out.pairs.window, pairs.window);
  EXPECT_EQ(out.pairs.dense, pairs.dense);
}

/// Choice, branches and output of the listed rows.
inline void ExpectCausalRows(const reference::AttentionCase& c, const CausalOutput& out,
                             const std::vector<int>& rows, double tolerance = kF32Tolerance) {
  const size_t width = static_cast<size_t>(c.num_q_heads) * c.head_dim;
  for (int row : rows) {
    std::vector<std::vector<int>> got;
    for (int g = 0; g < c.num_kv_heads; ++g) {
      const auto begin = out.blocks.begin() + (int64_t{row} * c.num_kv_heads + g) * c.block_count;
      got.emplace_back(begin, std::find(begin, begin + c.block_count, -1));
    }
    const reference::CausalRow free = reference::CausalNsaRow(c, row);
    for (int g = 0; g < c.num_kv_heads; ++g) {
      ASSERT_EQ(got[g].size(), free.blocks[g].size());
      if (free.margin[g] > kChoiceMargin) {
        ASSERT_EQ(got[g], free.blocks[g]) << "row " << row << " kv head " << g;
      }
    }
    const reference::CausalRow want = reference::CausalNsaRow(c, row, &got);
    ASSERT_TRUE(AllClose(&out.o_cmp[row * width], want.o_cmp.data(), width, tolerance)) << row;
    ASSERT_TRUE(AllClose(&out.o_slc[row * width], want.o_slc.data(), width, tolerance)) << row;
    ASSERT_TRUE(AllClose(&out.o_win[row * width], want.o_win.data(), width, tolerance)) << row;
    ASSERT_TRUE(AllClose(&out.o[row * width], want.out.data(), width, tolerance)) << row;
  }
}

inline void ExpectReleasedAccount(const reference::AttentionCase& c, const ReleasedOutput& out) {
  const int n = reference::KeptBlocks(c.block_count);
  ReleasedPairs pairs;
  const int64_t vision = std::count(c.is_vision.begin(), c.is_vision.end(), 1);
  for (int row = 0; row < c.len; ++row) {
    for (int j = 0; j <= row; ++j) {
      if (!c.is_vision[row]) {
        ++pairs.dense;
        continue;
      }
      pairs.window += j > row - c.window;
      for (int g = 0; g < kReleasedKvHeads; ++g) {
        const auto begin = out.blocks.begin() + (int64_t{row} * kReleasedKvHeads + g) * n;
        pairs.selected[g] += std::find(begin, begin + n, j / 64) != begin + n;
      }
    }
    for (int b = row / 64; c.is_vision[row] && b * 64 < c.len; ++b) ++pairs.compressed;
  }
  EXPECT_EQ(out.pairs.compressed, pairs.compressed);
  EXPECT_EQ(out.pairs.window, pairs.window);
  EXPECT_EQ(out.pairs.dense, pairs.dense);
  for (int g = 0; g < kReleasedKvHeads && vision > 0; ++g) {
    EXPECT_EQ(out.pairs.selected[g], pairs.selected[g]);
  }
}

/// Requires: at least one vision row.
inline void ExpectReleasedRows(const reference::AttentionCase& c, const ReleasedOutput& out,
                               const std::vector<int>& rows) {
  reference::ReleasedNsa oracle(c);
  const int n = reference::KeptBlocks(c.block_count);
  const size_t data = size_t{56} * c.head_dim, slots = size_t{64} * c.head_dim;
  const size_t width = size_t{28} * c.head_dim;
  for (int row : rows) {
    std::vector<std::vector<int>> got;
    for (int g = 0; g < kReleasedKvHeads; ++g) {
      const auto begin = out.blocks.begin() + (int64_t{row} * kReleasedKvHeads + g) * n;
      got.emplace_back(begin, begin + n);
    }
    const reference::ReleasedRow want = oracle.Row(row, &got);
    for (int g = 0; g < kReleasedKvHeads; ++g) {
      double margin;
      std::vector<int> chosen = oracle.Choose(want.scores[g], margin), mine = got[g];
      std::sort(chosen.begin(), chosen.end());
      std::sort(mine.begin(), mine.end());
      if (margin == 0 || margin > kChoiceMargin) {
        ASSERT_EQ(mine, chosen) << "row " << row << " kv head " << g;
      }
    }
    ASSERT_TRUE(AllClose(&out.o_cmp[row * slots], want.o_cmp.data(), data)) << row;
    ASSERT_TRUE(AllClose(&out.o_slc[row * slots], want.o_slc.data(), data)) << row;
    ASSERT_TRUE(AllClose(&out.o_win[row * slots], want.o_win.data(), data)) << row;
    ASSERT_TRUE(AllClose(&out.o[row * width], want.out.data(), width)) << row;
  }
}

}  // namespace videonsa
