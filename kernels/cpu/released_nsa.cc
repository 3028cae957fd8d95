#include "kernels/cpu/released_nsa.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/cpu/branch_attention.h"
#include "kernels/cpu/compressed_attention.h"
#include "kernels/cpu/pooled_tiles.h"
#include "kernels/cpu/released_choice.h"
#include "kernels/cpu/released_plan.h"
#include "kernels/cpu/released_text_rows.h"

namespace videonsa {
namespace {

// Tokens whose blocks are chosen together: the lanes of the network.
constexpr int kChosenAtOnce = 16;

// What both passes over the spans share.
struct Pass {
  const ReleasedNsaParams& p;
  const ReleasedPlan& plan;

  int BlocksOfPrompt() const { return plan.pooled.num_blocks; }
  int SpanBegin(int64_t task) const { return static_cast<int>(task) * plan.thread.tokens; }
  int SpanEnd(int64_t task) const {
    return std::min(p.num_rows, (static_cast<int>(task) + 1) * plan.thread.tokens);
  }

  // The vision rows of the task under one KV head: rows, outputs and gates.
  NsaSpan Begin(int64_t task, int kv_head, const NsaThread& t) const {
    NsaSpan span;
    span.group = ReleasedGroup(kv_head);
    span.head_dim = p.kv.head_dim;
    span.kv_head = kv_head;
    span.rows = t.rows;
    span.gathered = t.gathered;
    span.positions = t.positions;
    for (int i = SpanBegin(task); i < SpanEnd(task); ++i) {
      if (p.is_vision[i]) span.positions[span.num_tokens++] = i;
    }
    for (int row = 0; row < span.num_rows(); ++row) {
      const int64_t position = span.positions[row / span.group];
      const int head = HeadOfSlot(Slot(span, row));
      const int64_t offset = int64_t{head} * span.head_dim;
      span.rows[row] = TileRow{p.q.data + position * p.q.row_stride + offset};
      span.rows[row].state = t.states + row * StateFloats(span.head_dim);
      t.outs[row] = p.out.data + position * p.out.row_stride + offset;
      t.ones[row] = 1.0f;
    }
    PrepareQueries(span, p.kv, p.math, t.q_pairs);
    return span;
  }

  static int Slot(const NsaSpan& span, int row) {
    return span.kv_head * kReleasedSlotsPerKvHead + row % span.group;
  }

  // Adds half of the gated branch (a head has two copies) to the rows' outputs.
  void Finish(const NsaSpan& span, const NsaThread& t, int branch, float* probe) const {
    const int first_row = static_cast<int>(span.rows - t.rows);
    for (int row = 0; row < span.num_rows(); ++row) {
      const int64_t position = span.positions[row / span.group];
      const float g =
          p.gates.data[position * p.gates.row_stride + HeadOfSlot(Slot(span, row)) * 3 + branch];
      t.factors[row] = 0.5f / (1.0f + std::exp(-g / kGateTemperature));
      if (probe != nullptr) {
        t.probe_outs[row] = probe + (position * kReleasedSlots + Slot(span, row)) * span.head_dim;
      }
    }
    CombineBranch(span, t.outs + first_row, t.factors, true);
    if (probe != nullptr) CombineBranch(span, t.probe_outs, t.ones, false);
  }
};

// First pass: compression of every vision row and the log-sum-exps of all slots and rows, which the
// second pass reads across rows (quirk Q4).
struct CompressPass : Pass {
  void operator()(int64_t task, int thread_idx) const {
    const NsaThread t = plan.Thread(thread_idx);
    for (int i = SpanBegin(task); i < SpanEnd(task); ++i) {
      // A zero query sees equal logits: the log of their number.
      const float zero = std::log(static_cast<float>(BlocksOfPrompt() - i / kKvPageTokens));
      const int first = p.is_vision[i] ? 2 * kReleasedHeads : 0;
      for (int slot = first; slot < kReleasedSlots; ++slot) {
        plan.lse[int64_t{slot} * p.num_rows + i] = zero;
      }
      if (!p.is_vision[i]) continue;
      float* out = p.out.data + i * p.out.row_stride;
      std::fill(out, out + kReleasedHeads * p.kv.head_dim, 0.0f);
    }
    for (int kv_head = 0; kv_head < kReleasedKvHeads; ++kv_head) Compress(task, kv_head, t);
  }

  void Compress(int64_t task, int kv_head, const NsaThread& t) const {
    const NsaSpan span = Begin(task, kv_head, t);
    float lse[CompressedTokens(1)];
    const int step = CompressedTokens(kReleasedSlotsPerKvHead);
    for (int token = 0; token < span.num_tokens; token += step) {
      NsaSpan part = span;
      part.num_tokens = std::min(step, span.num_tokens - token);
      part.rows += token * span.group;
      part.positions += token;
      CompressedAttention(
          {part, plan.pooled, CompressedView::kOwnAndLater, p.scale, t.weights, nullptr, lse});
      for (int row = 0; row < part.num_rows(); ++row) {
        plan.lse[int64_t{Slot(part, row)} * p.num_rows + part.positions[row / part.group]] =
            lse[row];
      }
      Finish(part, t, 0, p.probes.o_cmp);
    }
  }
};

// Second pass: choice, selection and window; means of text rows; running means of vision rows.
struct SelectPass : Pass {
  void operator()(int64_t task, int thread_idx) const {
    const NsaThread t = plan.Thread(thread_idx);
    for (int kv_head = 0; kv_head < kReleasedKvHeads; ++kv_head) {
      const NsaSpan span = Begin(task, kv_head, t);
      Choose(span, t);
      if (span.num_tokens > 0) {
        const BranchArgs branch{span, p.kv, p.scale, p.math, p.is_vision};
        WindowAttention(branch, p.window);
        Finish(span, t, 2, p.probes.o_win);
        SelectedAttention(branch, BlockLists{t.blocks, plan.kept, plan.thread.num_blocks,
                                             t.block_first, t.block_tokens});
        Finish(span, t, 1, p.probes.o_slc);
        Count(span, t);
        AddRunningMeans(p.kv, plan.sums, kv_head, span.positions, span.num_tokens,
                        kReleasedHeads / kReleasedKvHeads, p.out.data, p.out.row_stride);
      }
      ChooseAndAverageText(task, kv_head, t);
    }
  }

  int64_t Stride() const { return int64_t{plan.pooled.num_tiles} * kKvPageTokens; }

  // t.blocks becomes the choice of the span's tokens.
  void Choose(const NsaSpan& span, const NsaThread& t) const {
    for (int begin = 0; begin < span.num_tokens; begin += kChosenAtOnce) {
      const int count = std::min(kChosenAtOnce, span.num_tokens - begin);
      for (int i = 0; i < count; ++i) {
        NsaSpan one = span;
        one.num_tokens = 1;
        one.rows += (begin + i) * span.group;
        one.positions += begin + i;
        t.released->saturated_rows += ReleasedScores(one, plan.pooled, plan.lse, p.scale, t.weights,
                                                     t.importance + i * Stride());
      }
      int32_t* blocks = t.blocks + int64_t{begin} * plan.kept;
      NetworkChoice(span.positions + begin, count, t.importance, Stride(), plan.kept, blocks);
      StoreProbe(span.positions + begin, count, span.kv_head, blocks);
      for (int i = 0; p.reports.selection_weight != nullptr && i < count; ++i) {
        Weigh(t.importance + i * Stride(), span.positions[begin + i] / kKvPageTokens,
              blocks + int64_t{i} * plan.kept, t);
      }
    }
  }

  void Weigh(const float* scores, int own, const int32_t* blocks, const NsaThread& t) const {
    double sum = 0;
    for (int i = 0; i < plan.kept; ++i) {
      if (blocks[i] >= 0 && blocks[i] != own) sum += scores[blocks[i]];
    }
    if (!(sum > 0)) {
      t.selection_weight[own] += 1;
      return;
    }
    for (int i = 0; i < plan.kept; ++i) {
      if (blocks[i] >= 0 && blocks[i] != own) {
        t.selection_weight[blocks[i]] += scores[blocks[i]] / sum;
      }
    }
  }

  void StoreProbe(const int32_t* positions, int count, int kv_head, const int32_t* blocks) const {
    for (int i = 0; p.probes.blocks != nullptr && i < count; ++i) {
      std::copy_n(
          blocks + int64_t{i} * plan.kept, plan.kept,
          p.probes.blocks + (int64_t{positions[i]} * kReleasedKvHeads + kv_head) * plan.kept);
    }
  }

  void Count(const NsaSpan& span, const NsaThread& t) const {
    for (int token = 0; token < span.num_tokens; ++token) {
      const int position = span.positions[token], own = position / kKvPageTokens;
      for (int i = 0; i < plan.kept; ++i) {
        const int block = t.blocks[int64_t{token} * plan.kept + i];
        if (block < 0) continue;
        t.released->selected[span.kv_head] +=
            block == own ? position % kKvPageTokens + 1 : kKvPageTokens;
      }
      if (span.kv_head != 0) continue;
      t.released->compressed += BlocksOfPrompt() - own;
      t.released->window += std::min(p.window, position + 1);
      for (int i = 0; p.reports.gate_sums != nullptr && i < 3 * kReleasedHeads; ++i) {
        const float g = p.gates.data[position * p.gates.row_stride + i];
        t.gate_sums[i % 3] += 1.0f / (1.0f + std::exp(-g / kGateTemperature));
      }
      *t.gate_count += kReleasedHeads;
    }
  }

  void ChooseAndAverageText(int64_t task, int kv_head, const NsaThread& t) const {
    TextRowMeans means;
    for (int i = SpanBegin(task); i < SpanEnd(task); ++i) {
      if (p.is_vision[i]) continue;
      const int32_t position = i;
      ReleasedTextScores(plan.lse, i, kv_head, t.importance);
      NetworkChoice(&position, 1, t.importance, Stride(), plan.kept, t.blocks);
      StoreProbe(&position, 1, kv_head, t.blocks);
      MeansOfTextRow(p.kv, plan.sums, kv_head, i, p.window, t.blocks, plan.kept, means);
      for (int r = 0; r < ReleasedGroup(kv_head); ++r) {
        const int slot = kv_head * kReleasedSlotsPerKvHead + r;
        float* out = p.out.data + i * p.out.row_stride + int64_t{HeadOfSlot(slot)} * p.kv.head_dim;
        for (int d = 0; d < p.kv.head_dim; ++d) {  // gates of text rows are 0.5 (quirk Q6)
          out[d] += static_cast<float>(0.25 * (means.cmp[d] + means.slc[d] + means.win[d]));
        }
        ProbeText(i, slot, means);
      }
    }
  }

  void ProbeText(int position, int slot, const TextRowMeans& means) const {
    const int64_t at = (int64_t{position} * kReleasedSlots + slot) * p.kv.head_dim;
    for (int d = 0; d < p.kv.head_dim; ++d) {
      if (p.probes.o_cmp != nullptr) p.probes.o_cmp[at + d] = static_cast<float>(means.cmp[d]);
      if (p.probes.o_slc != nullptr) p.probes.o_slc[at + d] = static_cast<float>(means.slc[d]);
      if (p.probes.o_win != nullptr) p.probes.o_win[at + d] = static_cast<float>(means.win[d]);
    }
  }
};

void ClearReports(const ReleasedPlan& plan, int num_threads) {
  for (int i = 0; i < num_threads; ++i) {
    const NsaThread t = plan.Thread(i);
    std::fill(t.selection_weight, t.selection_weight + plan.thread.num_blocks, 0.0);
    std::fill(t.gate_sums, t.gate_sums + 3, 0.0);
    *t.gate_count = 0;
    *t.released = ReleasedPairs();
  }
}

void AddReports(const ReleasedNsaParams& p, const ReleasedPlan& plan, int num_threads) {
  for (int i = 0; i < num_threads; ++i) {
    const NsaThread t = plan.Thread(i);
    if (p.pairs != nullptr) {
      p.pairs->compressed += t.released->compressed;
      p.pairs->window += t.released->window;
      p.pairs->saturated_rows += t.released->saturated_rows;
      for (int c = 0; c < kReleasedKvHeads; ++c) p.pairs->selected[c] += t.released->selected[c];
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

void DenseTextRows(const ReleasedNsaParams& p, const ReleasedPlan& plan, ThreadPool& pool) {
  DensePrefillParams dense;
  dense.kv = p.kv;
  dense.q = p.q;
  dense.out = p.out;
  dense.skip_rows = p.is_vision;
  dense.num_q_heads = kReleasedHeads;
  dense.row_end = p.num_rows;
  dense.scale = p.scale;
  dense.math = p.math;
  DensePrefill(dense, plan.dense, pool);
  for (int i = 0; p.pairs != nullptr && i < p.num_rows; ++i) {
    if (!p.is_vision[i]) p.pairs->dense += i + 1;
  }
}

}  // namespace

size_t ReleasedNsaScratchBytes(int num_threads, const PagedKv& kv, int max_len,
                               int selected_blocks) {
  return ReleasedPlan::Of(num_threads, kv, max_len, selected_blocks, nullptr).bytes;
}

void ReleasedNsaPrefill(const ReleasedNsaParams& params, Scratch scratch, ThreadPool& pool) {
  if (params.num_rows <= 0) return;
  ReleasedPlan plan = ReleasedPlan::Of(pool.num_threads(), params.kv, params.num_rows,
                                       params.selected_blocks, scratch.data);
  plan.sums.keep = params.is_vision;
  DenseTextRows(params, plan, pool);
  const uint8_t* end = params.is_vision + params.num_rows;
  if (std::find(params.is_vision, end, 1) == end) return;  // dense alone (quirk Q10)
  ClearReports(plan, pool.num_threads());
  PoolKeptTiles(params.kv, params.is_vision, params.num_rows, plan.pooled, pool);
  SumValues(params.kv, plan.sums, pool);
  const int64_t spans = (params.num_rows + plan.thread.tokens - 1) / plan.thread.tokens;
  const CompressPass compress{{params, plan}};
  pool.ParallelFor(spans, std::ref(compress));
  const SelectPass select{{params, plan}};
  pool.ParallelFor(spans, std::ref(select));
  if (params.probes.lse != nullptr) {
    std::copy_n(plan.lse, int64_t{kReleasedSlots} * params.num_rows, params.probes.lse);
  }
  AddReports(params, plan, pool.num_threads());
}

}  // namespace videonsa
