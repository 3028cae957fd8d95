#pragma once

#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/causal_nsa.h"
#include "tests/kernels/cpu/test_pages.h"

namespace videonsa {

/// Everything that causal_nsa says of a sequence; rows are positions.
struct CausalOutput {
  std::vector<float> o, o_cmp, o_slc, o_win;
  std::vector<int32_t> blocks;  ///< -1 in text rows
  std::vector<double> selection_weight;
  double gate_sums[3] = {};
  int64_t gate_count = 0;
  NsaPairs pairs;
};

struct CausalRun {
  DType dtype = DType::kF32;
  MathType math = MathType::kF32;
  int threads = 2;
  std::vector<int> borders;  ///< ends of the chunks; the last one is the length
};

/// Runs the kernels chunk by chunk over pages whose unused rows are NaN.
inline CausalOutput RunCausal(const reference::AttentionCase& c, const CausalRun& run,
                              std::mt19937& rng) {
  const int64_t width = int64_t{c.num_q_heads} * c.head_dim;
  const int64_t list = int64_t{c.num_kv_heads} * c.block_count;
  CausalOutput out;
  out.o.assign(c.len * width, std::numeric_limits<float>::quiet_NaN());
  for (std::vector<float>* branch : {&out.o_cmp, &out.o_slc, &out.o_win}) {
    branch->assign(c.len * width, 0.0f);  // kernels leave the branches of text rows alone
  }
  out.blocks.assign(c.len * list, -1);
  out.selection_weight.assign((c.len + kKvPageTokens - 1) / kKvPageTokens, 0.0);
  ThreadPool pool(run.threads);
  TestPages pages(run.dtype, c.num_kv_heads, c.head_dim, c.len, rng);
  GarbageScratch scratch(
      CausalNsaScratchBytes(run.threads, c.num_q_heads, pages.kv(), c.len, c.block_count));
  int begin = 0;
  for (int end : run.borders) {
    pages.Append(c, begin, end, pool);
    CausalNsaParams p;
    p.kv = pages.kv();
    p.q = {c.q.data() + begin * width, width};
    p.gates = {c.g.data() + int64_t{begin} * c.num_q_heads * 3, int64_t{c.num_q_heads} * 3};
    p.out = {out.o.data() + begin * width, width};
    p.is_vision = c.is_vision.data() + begin;
    p.num_q_heads = c.num_q_heads;
    p.row_begin = begin;
    p.row_end = end;
    p.selected_blocks = c.block_count;
    p.window = c.window;
    p.scale = static_cast<float>(c.Scale());
    p.math = run.math;
    p.pairs = &out.pairs;
    p.reports = {out.selection_weight.data(), out.gate_sums, &out.gate_count};
    p.probes = {out.o_cmp.data() + begin * width, out.o_slc.data() + begin * width,
                out.o_win.data() + begin * width, out.blocks.data() + begin * list, nullptr};
    CausalNsaPrefill(p, scratch.get(), pool);
    begin = end;
  }
  return out;
}

}  // namespace videonsa
