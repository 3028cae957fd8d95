#pragma once

#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/released_nsa.h"
#include "tests/kernels/cpu/test_pages.h"

namespace videonsa {

/// Everything that released_nsa says of a prompt; rows are positions.
struct ReleasedOutput {
  std::vector<float> o;
  std::vector<float> o_cmp, o_slc, o_win;  ///< [rows, 64 slots, head_dim]; 0 in zero slots
  std::vector<float> lse;                  ///< [64, rows]
  std::vector<int32_t> blocks;             ///< [rows, 4, n]
  std::vector<double> selection_weight;
  double gate_sums[3] = {};
  int64_t gate_count = 0;
  ReleasedPairs pairs;
};

inline ReleasedOutput RunReleased(const reference::AttentionCase& c, DType dtype, MathType math,
                                  int threads, std::mt19937& rng) {
  const int64_t width = int64_t{kReleasedHeads} * c.head_dim;
  int kept = 1;
  while (kept < c.block_count) kept *= 2;
  ReleasedOutput out;
  out.o.assign(c.len * width, std::numeric_limits<float>::quiet_NaN());
  for (std::vector<float>* branch : {&out.o_cmp, &out.o_slc, &out.o_win}) {
    branch->assign(size_t{kReleasedSlots} * c.len * c.head_dim, 0.0f);
  }
  out.lse.assign(size_t{kReleasedSlots} * c.len, std::numeric_limits<float>::quiet_NaN());
  out.blocks.assign(size_t{kReleasedKvHeads} * c.len * kept, -2);
  out.selection_weight.assign((c.len + kKvPageTokens - 1) / kKvPageTokens, 0.0);
  ThreadPool pool(threads);
  TestPages pages(dtype, kReleasedKvHeads, c.head_dim, c.len, rng);
  pages.Append(c, 0, c.len, pool);
  GarbageScratch scratch(ReleasedNsaScratchBytes(threads, pages.kv(), c.len, c.block_count));
  ReleasedNsaParams p;
  p.kv = pages.kv();
  p.q = {c.q.data(), width};
  p.gates = {c.g.data(), int64_t{kReleasedHeads} * 3};
  p.out = {out.o.data(), width};
  p.is_vision = c.is_vision.data();
  p.num_rows = c.len;
  p.selected_blocks = c.block_count;
  p.window = c.window;
  p.scale = static_cast<float>(c.Scale());
  p.math = math;
  p.pairs = &out.pairs;
  p.reports = {out.selection_weight.data(), out.gate_sums, &out.gate_count};
  p.probes = {out.o_cmp.data(), out.o_slc.data(), out.o_win.data(), out.blocks.data(),
              out.lse.data()};
  ReleasedNsaPrefill(p, scratch.get(), pool);
  return out;
}

}  // namespace videonsa
