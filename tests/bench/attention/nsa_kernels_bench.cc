#include <algorithm>
#include <string>

#include "kernels/cpu/block_choice.h"
#include "kernels/cpu/branch_attention.h"
#include "kernels/cpu/compressed_attention.h"
#include "kernels/cpu/nsa_thread.h"
#include "kernels/cpu/pooled_tiles.h"
#include "tests/bench/attention/bench_case.h"

namespace videonsa::bench {
namespace {

constexpr int kBlocksChosen = 16;
constexpr int kWindow = 256;

// Runs one kernel at a time over every span and KV head of a prompt.
class SpanBench {
 public:
  SpanBench(const Prompt& prompt, MathType math, ThreadPool& pool)
      : prompt_(prompt),
        math_(math),
        pool_(pool),
        plan_(NsaThreadPlan::Of(prompt.num_q_heads / prompt.kv.num_kv_heads, prompt.kv.head_dim,
                                kBlocksChosen, static_cast<int>(Prompt::Blocks(prompt.len)))),
        threads_(pool.num_threads() * plan_.bytes / 4),
        spans_((prompt.len + plan_.tokens - 1) / plan_.tokens),
        lists_(static_cast<size_t>(prompt.len) * prompt.kv.num_kv_heads * kBlocksChosen) {
    pooled_.num_blocks = prompt.len / kKvPageTokens;
    pooled_.num_tiles = PooledTiles::TilesOf(static_cast<int>(Prompt::Blocks(prompt.len)));
    pooled_.head_dim = prompt.kv.head_dim;
    const size_t floats = prompt.kv.num_kv_heads * pooled_.num_tiles * pooled_.tile_floats();
    pooled_k_ = std::make_unique<AlignedFloats>(floats);
    pooled_v_ = std::make_unique<AlignedFloats>(floats);
    pooled_.k = pooled_k_->get();
    pooled_.v = pooled_v_->get();
  }

  double Pooling() {
    return Fastest(5, [&] { GatherPooledTiles(prompt_.kv, pooled_, pool_); });
  }
  // Compression with or without the choice that follows it.
  double Compression(bool choose) {
    return Spans([&](const NsaSpan& span, const NsaThread& t, int32_t* lists) {
      const int step = CompressedTokens(span.group);
      const int64_t stride = int64_t{pooled_.num_tiles} * kKvPageTokens;
      for (int token = 0; token < span.num_tokens; token += step) {
        NsaSpan part = span;
        part.num_tokens = std::min(step, span.num_tokens - token);
        part.rows += token * span.group;
        part.positions += token;
        CompressedAttention({part, pooled_, CompressedView::kEarlier, prompt_.scale, t.weights,
                             t.importance, nullptr});
        for (int i = 0; choose && i < part.num_tokens; ++i) {
          ChooseCausalBlocks(t.importance + i * stride, part.positions[i] / kKvPageTokens,
                             kBlocksChosen, lists + (token + i) * kBlocksChosen, t.kept_weights);
        }
      }
    });
  }
  double Window() {
    return Spans([&](const NsaSpan& span, const NsaThread&, int32_t*) {
      WindowAttention({span, prompt_.kv, prompt_.scale, math_, nullptr}, kWindow);
    });
  }
  // Requires: Compression(true) ran.
  double Selection() {
    return Spans([&](const NsaSpan& span, const NsaThread& t, int32_t* lists) {
      SelectedAttention({span, prompt_.kv, prompt_.scale, math_, nullptr},
                        {lists, kBlocksChosen, plan_.num_blocks, t.block_first, t.block_tokens});
    });
  }
  double Combine() {
    return Spans([&](const NsaSpan& span, const NsaThread& t, int32_t*) {
      for (int branch = 0; branch < 3; ++branch) CombineBranch(span, t.outs, t.ones, branch != 0);
    });
  }

 private:
  template <typename Body>
  double Spans(const Body& body) {
    const auto task = [&](int64_t index, int thread) {
      const int kv_head = static_cast<int>(index % prompt_.kv.num_kv_heads);
      const int begin = static_cast<int>(index / prompt_.kv.num_kv_heads) * plan_.tokens;
      ScratchCursor cursor(reinterpret_cast<char*>(threads_.get()) + thread * plan_.bytes);
      const NsaThread t = plan_.Take(cursor);
      NsaSpan span;
      span.num_tokens = std::min(plan_.tokens, prompt_.len - begin);
      span.group = plan_.group;
      span.head_dim = plan_.head_dim;
      span.kv_head = kv_head;
      span.rows = t.rows;
      span.gathered = t.gathered;
      span.positions = t.positions;
      for (int i = 0; i < span.num_tokens; ++i) t.positions[i] = begin + i;
      for (int row = 0; row < span.num_rows(); ++row) {
        const int64_t offset = (begin + row / span.group) * prompt_.row() +
                               (kv_head * span.group + row % span.group) * span.head_dim;
        t.rows[row] = TileRow{prompt_.q.get() + offset};
        t.rows[row].state = t.states + row * StateFloats(span.head_dim);
        t.outs[row] = prompt_.out.get() + offset;
        t.ones[row] = 1;
      }
      PrepareQueries(span, prompt_.kv, math_, t.q_pairs);
      body(span, t, lists_.data() + (int64_t{kv_head} * prompt_.len + begin) * kBlocksChosen);
    };
    return Fastest(
        3, [&] { pool_.ParallelFor(int64_t{spans_} * prompt_.kv.num_kv_heads, std::ref(task)); });
  }

  const Prompt& prompt_;
  const MathType math_;
  ThreadPool& pool_;
  NsaThreadPlan plan_;
  AlignedFloats threads_;
  int spans_;
  std::vector<int32_t> lists_;
  PooledTiles pooled_;
  std::unique_ptr<AlignedFloats> pooled_k_, pooled_v_;
};

}  // namespace

CausalParts MeasureCausalParts(const Prompt& prompt, MathType math, ThreadPool& pool) {
  SpanBench bench(prompt, math, pool);
  CausalParts parts;
  parts.compressed = bench.Pooling() + bench.Compression(true);
  parts.others = bench.Window() + bench.Selection() + bench.Combine();
  return parts;
}

// FLOP: 4 head_dim for each pair and query head (choice: one comparison a candidate). Bytes: what a
// span must read at least once (K and V tiles it touches, queries) and write.
std::vector<KernelRow> NsaKernelRows(const MachineLimits& limits, const Arithmetic& arithmetic,
                                     int len, ThreadPool& pool) {
  const int heads = 16, kv_heads = 4, dim = 64;
  const Prompt prompt(len, heads, kv_heads, dim, arithmetic.dtype, pool);
  const double kv_bytes = 2.0 * dim * SizeOf(arithmetic.dtype) * kv_heads;  // a token
  const double row_bytes = 2.0 * 4 * dim * heads;  // q read, out written, a token
  NsaPairs pairs;
  double blocks_read = 0;  // upper bound of tiles read: every block once a span
  const int tokens = NsaThreadPlan::Of(heads / kv_heads, dim, kBlocksChosen, 1).tokens;
  for (int i = 0; i < len; ++i) {
    pairs.compressed += (i + 1) / 64;
    pairs.selected += std::min(kBlocksChosen - 1, i / 64) * 64 + i % 64 + 1;
    pairs.window += std::min(kWindow, i + 1);
    if (i % tokens == 0)
      blocks_read += std::min<double>((i + tokens) / 64.0, tokens * kBlocksChosen);
  }
  SpanBench bench(prompt, arithmetic.math, pool);
  const double flop = 4.0 * dim * heads;
  const std::string shape = std::to_string(len) + " tokens, 16/4 heads of 64, B = 16, W = 256";
  std::vector<KernelRow> rows;
  const auto add = [&](const char* kernel, const char* name, double flops, double bytes,
                       double seconds, double limit) {
    rows.push_back({kernel, shape, name, flops, bytes, seconds, limit});
  };
  const double pooling = bench.Pooling();
  const double compression = bench.Compression(false);
  const double choice = bench.Compression(true) - compression;
  if (arithmetic.dtype == DType::kF32) {  // the same in both
    add("pooled tiles", "f32", 0, 4.0 * dim * kv_heads * len / 64.0 * 4, pooling, limits.gemm_f32);
    add("compressed attention", "f32", flop * pairs.compressed, row_bytes * len, compression,
        limits.gemm_f32);
    add("block choice", "f32", 1.0 * kv_heads * pairs.compressed, 4.0 * kv_heads * pairs.compressed,
        choice, limits.gemm_f32);
  }
  const double limit = arithmetic.Limit(limits);
  add("window attention", arithmetic.name, flop * pairs.window,
      (row_bytes + kv_bytes * (tokens + kWindow) / tokens) * len, bench.Window(), limit);
  add("selected attention", arithmetic.name, flop * pairs.selected,
      row_bytes * len + kv_bytes * 64 * blocks_read, bench.Selection(), limit);
  if (arithmetic.dtype == DType::kF32) {
    add("gated combine, three branches", "f32", 3.0 * 2 * dim * heads * len, 3.0 * row_bytes * len,
        bench.Combine(), limits.gemm_f32);
  }
  return rows;
}

}  // namespace videonsa::bench
