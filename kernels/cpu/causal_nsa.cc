#include "kernels/cpu/causal_nsa.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>

#include "kernels/cpu/block_choice.h"
#include "kernels/cpu/branch_attention.h"
#include "kernels/cpu/compressed_attention.h"
#include "kernels/cpu/dense_attention.h"
#include "kernels/cpu/nsa_thread.h"
#include "kernels/cpu/pooled_tiles.h"

namespace videonsa {
namespace {

int BlocksOf(int len) { return (len + kKvPageTokens - 1) / kKvPageTokens; }

struct Plan {
  NsaThreadPlan thread;
  PooledTiles pooled;
  char* threads = nullptr;
  Scratch dense;
  size_t bytes = 0;

  static Plan Of(int num_threads, int num_q_heads, const PagedKv& kv, int len, int selected_blocks,
                 void* scratch) {
    Plan plan;
    plan.thread = NsaThreadPlan::Of(num_q_heads / kv.num_kv_heads, kv.head_dim, selected_blocks,
                                    BlocksOf(len));
    ScratchCursor cursor(scratch);
    plan.pooled.num_blocks = len / kKvPageTokens;
    plan.pooled.num_tiles = PooledTiles::TilesOf(BlocksOf(len));
    plan.pooled.head_dim = kv.head_dim;
    const size_t floats = kv.num_kv_heads * plan.pooled.num_tiles * plan.pooled.tile_floats();
    plan.pooled.k = cursor.Take<float>(floats);
    plan.pooled.v = cursor.Take<float>(floats);
    plan.threads = cursor.Take<char>(num_threads * plan.thread.bytes);
    plan.dense.bytes =
        DensePrefillScratchBytes(num_threads, num_q_heads, kv.num_kv_heads, kv.head_dim);
    plan.dense.data = cursor.Take<char>(plan.dense.bytes);
    plan.bytes = cursor.used();
    return plan;
  }

  NsaThread Thread(int thread_idx) const {
    ScratchCursor cursor(threads + thread_idx * thread.bytes);
    return thread.Take(cursor);
  }
};

// One task: the vision rows of one span under one KV head.
struct SpanTask {
  const CausalNsaParams& p;
  const Plan& plan;

  void operator()(int64_t task, int thread_idx) const {
    const int kv_head = static_cast<int>(task % p.kv.num_kv_heads);
    const int tokens = plan.thread.tokens;
    const int last_span = (p.row_end - 1) / tokens;
    const int span_idx = last_span - static_cast<int>(task / p.kv.num_kv_heads);
    NsaThread t = plan.Thread(thread_idx);
    NsaSpan span;
    span.group = plan.thread.group;
    span.head_dim = p.kv.head_dim;
    span.kv_head = kv_head;
    span.rows = t.rows;
    span.gathered = t.gathered;
    span.positions = t.positions;
    const int end = std::min(p.row_end, (span_idx + 1) * tokens);
    for (int i = std::max(p.row_begin, span_idx * tokens); i < end; ++i) {
      if (p.is_vision[i - p.row_begin]) span.positions[span.num_tokens++] = i;
    }
    if (span.num_tokens == 0) return;
    Begin(span, t);
    CompressAndChoose(span, t);
    const BranchArgs branch{span, p.kv, p.scale, p.math, nullptr};
    WindowAttention(branch, p.window);
    Finish(span, t, 2, p.probes.o_win);
    SelectedAttention(branch, BlockLists{t.blocks, p.selected_blocks, plan.thread.num_blocks,
                                         t.block_first, t.block_tokens});
    Finish(span, t, 1, p.probes.o_slc);
    Report(span, t);
  }

  int Head(const NsaSpan& span, int row) const {
    return span.kv_head * span.group + row % span.group;
  }
  int64_t ChunkRow(const NsaSpan& span, int token) const {
    return span.positions[token] - p.row_begin;
  }

  void Begin(const NsaSpan& span, const NsaThread& t) const {
    const size_t num_rows = static_cast<size_t>(plan.thread.tokens) * span.group;
    for (int row = 0; row < span.num_rows(); ++row) {
      const int64_t chunk_row = ChunkRow(span, row / span.group);
      const int64_t offset = int64_t{Head(span, row)} * span.head_dim;
      span.rows[row] = TileRow{p.q.data + chunk_row * p.q.row_stride + offset};
      span.rows[row].state = t.states + row * StateFloats(span.head_dim);
      t.outs[row] = p.out.data + chunk_row * p.out.row_stride + offset;
      const float* g = p.gates.data + chunk_row * p.gates.row_stride + Head(span, row) * 3;
      for (int branch = 0; branch < 3; ++branch) {
        t.factors[branch * num_rows + row] =
            1.0f / (1.0f + std::exp(-g[branch] / kGateTemperature));
      }
      t.ones[row] = 1.0f;
    }
    PrepareQueries(span, p.kv, p.math, t.q_pairs);
  }

  // Adds the branch in the states to the rows' outputs (the first branch overwrites them).
  void Finish(const NsaSpan& span, const NsaThread& t, int branch, float* probe) const {
    const size_t num_rows = static_cast<size_t>(plan.thread.tokens) * span.group;
    const int first_row = static_cast<int>(span.rows - t.rows);
    CombineBranch(span, t.outs + first_row, t.factors + branch * num_rows + first_row, branch != 0);
    if (probe == nullptr) return;
    for (int row = 0; row < span.num_rows(); ++row) {
      t.probe_outs[row] =
          probe +
          (ChunkRow(span, row / span.group) * p.num_q_heads + Head(span, row)) * span.head_dim;
    }
    CombineBranch(span, t.probe_outs, t.ones, false);
  }

  void CompressAndChoose(const NsaSpan& span, const NsaThread& t) const {
    const int step = CompressedTokens(span.group);
    const int64_t stride = int64_t{plan.pooled.num_tiles} * kKvPageTokens;
    for (int token = 0; token < span.num_tokens; token += step) {
      NsaSpan part = span;
      part.num_tokens = std::min(step, span.num_tokens - token);
      part.rows += token * span.group;
      part.positions += token;
      const CompressedArgs args{
          part, plan.pooled, CompressedView::kEarlier, p.scale, t.weights, t.importance, nullptr};
      CompressedAttention(args);
      Finish(part, t, 0, p.probes.o_cmp);
      uint32_t steep = 0;  // tokens whose weights do not tell their blocks apart
      for (int i = 0; i < part.num_tokens; ++i) {
        const bool plain = ChooseBlocks(part.positions[i], t.importance + i * stride, false,
                                        t.blocks + int64_t{token + i} * p.selected_blocks, t);
        steep |= uint32_t{!plain} << i;
      }
      if (steep == 0) continue;
      LogImportance(args);
      for (int i = 0; i < part.num_tokens; ++i) {
        if ((steep >> i & 1) == 0) continue;
        ChooseBlocks(part.positions[i], t.importance + i * stride, true,
                     t.blocks + int64_t{token + i} * p.selected_blocks, t);
      }
    }
  }

  // The choice of one token from weights or their logarithms; false, and nothing reported, if it
  // reaches weights so small that only logarithms tell them apart.
  bool ChooseBlocks(int position, const float* importance, bool logs, int32_t* blocks,
                    const NsaThread& t) const {
    const int own = position / kKvPageTokens;
    const int chosen =
        ChooseCausalBlocks(importance, own, p.selected_blocks, blocks, t.kept_weights);
    const bool reported = p.reports.selection_weight != nullptr;
    if (!logs && chosen > 1 && (chosen <= own || reported)) {
      float lightest = importance[blocks[0]], heaviest = lightest;
      for (int i = 1; i + 1 < chosen; ++i) {
        lightest = std::min(lightest, importance[blocks[i]]);
        heaviest = std::max(heaviest, importance[blocks[i]]);
      }
      // Where every block is chosen, only their shares matter.
      if ((chosen <= own ? lightest : heaviest) < kLeastPlainWeight) return false;
    }
    if (reported) Weigh(importance, logs, own, {blocks, static_cast<size_t>(chosen - 1)}, t);
    return true;
  }

  static void Weigh(const float* importance, bool logs, int own, std::span<const int32_t> earlier,
                    const NsaThread& t) {
    if (earlier.empty()) {
      t.selection_weight[own] += 1;
      return;
    }
    float top = importance[earlier[0]];
    for (int32_t block : earlier) top = std::max(top, importance[block]);
    const auto weight = [&](int32_t block) {
      return logs ? std::exp2(double{importance[block]} - top) : double{importance[block]};
    };
    double sum = 0;
    for (int32_t block : earlier) sum += weight(block);
    for (int32_t block : earlier) t.selection_weight[block] += weight(block) / sum;
  }

  void Report(const NsaSpan& span, const NsaThread& t) const {
    for (int token = 0; token < span.num_tokens; ++token) {
      int32_t* blocks = t.blocks + int64_t{token} * p.selected_blocks;
      const int position = span.positions[token];
      const int own = position / kKvPageTokens;
      if (p.pairs != nullptr && span.kv_head == 0) {  // every KV head chooses as many blocks
        for (int i = 0; i < p.selected_blocks && blocks[i] >= 0; ++i) {
          t.pairs->selected += blocks[i] == own ? position % kKvPageTokens + 1 : kKvPageTokens;
        }
        t.pairs->compressed += (position + 1) / kKvPageTokens;
        t.pairs->window += std::min(p.window, position + 1);
      }
      if (p.probes.blocks != nullptr) {
        std::sort(blocks, std::find(blocks, blocks + p.selected_blocks, -1));
        std::copy(blocks, blocks + p.selected_blocks,
                  p.probes.blocks + (ChunkRow(span, token) * p.kv.num_kv_heads + span.kv_head) *
                                        p.selected_blocks);
      }
    }
    if (p.reports.gate_sums == nullptr) return;
    const size_t num_rows = static_cast<size_t>(plan.thread.tokens) * span.group;
    for (int branch = 0; branch < 3; ++branch) {
      for (int row = 0; row < span.num_rows(); ++row) {
        t.gate_sums[branch] += t.factors[branch * num_rows + row];
      }
    }
    *t.gate_count += span.num_rows();
  }
};

void ClearReports(const Plan& plan, int num_threads) {
  for (int i = 0; i < num_threads; ++i) {
    const NsaThread t = plan.Thread(i);
    std::fill(t.selection_weight, t.selection_weight + plan.thread.num_blocks, 0.0);
    std::fill(t.gate_sums, t.gate_sums + 3, 0.0);
    *t.gate_count = 0;
    *t.pairs = NsaPairs();
  }
}

void AddReports(const CausalNsaParams& p, const Plan& plan, int num_threads) {
  for (int i = 0; i < num_threads; ++i) {
    const NsaThread t = plan.Thread(i);
    if (p.pairs != nullptr) {
      p.pairs->compressed += t.pairs->compressed;
      p.pairs->selected += t.pairs->selected;
      p.pairs->window += t.pairs->window;
    }
    for (int b = 0; p.reports.selection_weight != nullptr && b < plan.thread.num_blocks; ++b) {
      p.reports.selection_weight[b] += t.selection_weight[b];
    }
    for (int b = 0; p.reports.gate_sums != nullptr && b < 3; ++b) {
      p.reports.gate_sums[b] += t.gate_sums[b];
    }
    if (p.reports.gate_count != nullptr) *p.reports.gate_count += *t.gate_count;
  }
}

}  // namespace

size_t CausalNsaScratchBytes(int num_threads, int num_q_heads, const PagedKv& kv, int max_len,
                             int selected_blocks) {
  return Plan::Of(num_threads, num_q_heads, kv, max_len, selected_blocks, nullptr).bytes;
}

void CausalNsaPrefill(const CausalNsaParams& params, Scratch scratch, ThreadPool& pool) {
  if (params.row_end <= params.row_begin) return;
  const int num_rows = params.row_end - params.row_begin;
  const Plan plan = Plan::Of(pool.num_threads(), params.num_q_heads, params.kv, params.row_end,
                             params.selected_blocks, scratch.data);
  const int64_t num_text = std::count(params.is_vision, params.is_vision + num_rows, 0);
  if (num_text < num_rows) {
    ClearReports(plan, pool.num_threads());
    GatherPooledTiles(params.kv, plan.pooled, pool);
    const int spans =
        (params.row_end - 1) / plan.thread.tokens - params.row_begin / plan.thread.tokens + 1;
    const SpanTask task{params, plan};
    pool.ParallelFor(int64_t{spans} * params.kv.num_kv_heads, std::ref(task));
    AddReports(params, plan, pool.num_threads());
  }
  if (num_text == 0) return;
  DensePrefillParams dense;
  dense.kv = params.kv;
  dense.q = params.q;
  dense.out = params.out;
  dense.skip_rows = params.is_vision;
  dense.num_q_heads = params.num_q_heads;
  dense.row_begin = params.row_begin;
  dense.row_end = params.row_end;
  dense.scale = params.scale;
  dense.math = params.math;
  DensePrefill(dense, plan.dense, pool);
  for (int i = 0; params.pairs != nullptr && i < num_rows; ++i) {
    if (!params.is_vision[i]) params.pairs->dense += params.row_begin + i + 1;
  }
}

}  // namespace videonsa
