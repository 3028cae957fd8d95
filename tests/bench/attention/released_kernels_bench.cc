// released_nsa at the shapes that it is defined for, and the kernels that only it has.
#include <cstdio>

#include "kernels/cpu/dense_attention.h"
#include "kernels/cpu/released_choice.h"
#include "kernels/cpu/released_nsa.h"
#include "kernels/cpu/released_plan.h"
#include "kernels/cpu/value_sums.h"
#include "tests/bench/attention/bench_case.h"

namespace videonsa::bench {
namespace {

constexpr int kHeads = kReleasedHeads, kDim = 128, kBlocks = 32, kWindow = 256;

// A prompt with text before and after the visual and a text row in every frame (quirk Q1).
Prompt ReleasedPrompt(int len, DType dtype, ThreadPool& pool) {
  Prompt prompt(len, kHeads, kReleasedKvHeads, kDim, dtype, pool);
  for (int i = 0; i < len; ++i) prompt.is_vision[i] = i >= 64 && i < len - 128 && i % 317 != 64;
  return prompt;
}

double ReleasedSeconds(const Prompt& prompt, MathType math, ReleasedPairs* pairs,
                       ThreadPool& pool) {
  const size_t bytes = ReleasedNsaScratchBytes(pool.num_threads(), prompt.kv, prompt.len, kBlocks);
  AlignedFloats scratch(bytes / 4);
  ReleasedNsaParams p;
  p.kv = prompt.kv;
  p.q = prompt.Q();
  p.gates = prompt.Gates();
  p.out = prompt.Out();
  p.is_vision = prompt.is_vision.data();
  p.num_rows = prompt.len;
  p.selected_blocks = kBlocks;
  p.window = kWindow;
  p.scale = prompt.scale;
  p.math = math;
  p.pairs = pairs;
  return Fastest(3, [&] {
    if (pairs != nullptr) *pairs = ReleasedPairs();
    ReleasedNsaPrefill(p, {scratch.get(), bytes}, pool);
  });
}

double CausalSeconds(const Prompt& prompt, MathType math, ThreadPool& pool) {
  const size_t bytes =
      CausalNsaScratchBytes(pool.num_threads(), kHeads, prompt.kv, prompt.len, kBlocks);
  AlignedFloats scratch(bytes / 4);
  CausalNsaParams p;
  p.kv = prompt.kv;
  p.q = prompt.Q();
  p.gates = prompt.Gates();
  p.out = prompt.Out();
  p.is_vision = prompt.is_vision.data();
  p.num_q_heads = kHeads;
  p.row_end = prompt.len;
  p.selected_blocks = kBlocks;
  p.window = kWindow;
  p.scale = prompt.scale;
  p.math = math;
  return Fastest(3, [&] { CausalNsaPrefill(p, {scratch.get(), bytes}, pool); });
}

// The released kernel's network over random scores of every row, 32 of all blocks.
KernelRow NetworkRow(const MachineLimits& limits, int len, ThreadPool& pool) {
  constexpr int kAtOnce = 16;
  const int stride = PooledTiles::TilesOf((len + 63) / 64) * 64;
  std::vector<float> scores(static_cast<size_t>(kAtOnce) * stride);
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(i * 2654435761u % 9973);
  std::vector<int32_t> blocks(static_cast<size_t>(pool.num_threads()) * kAtOnce * kBlocks);
  const int64_t tasks = int64_t{len} / kAtOnce * kReleasedKvHeads;
  const double seconds = Fastest(3, [&] {
    pool.ParallelFor(tasks, [&](int64_t task, int thread) {
      int32_t positions[kAtOnce];
      for (int i = 0; i < kAtOnce; ++i) {
        positions[i] = static_cast<int>(task / kReleasedKvHeads) * kAtOnce + i;
      }
      NetworkChoice(positions, kAtOnce, scores.data(), stride, kBlocks,
                    blocks.data() + static_cast<size_t>(thread) * kAtOnce * kBlocks);
    });
  });
  // Chunks of 64 lanes: 21 stages of 32 exchanges; later chunks are merged (6 stages more).
  double chunks = 0;
  for (int i = 0; i < len; ++i) chunks += i / 64 / 64 + 1;
  return {"released choice network",
          std::to_string(len) + " rows, 4 KV heads",
          "f32",
          chunks * kReleasedKvHeads * 27 * 32,
          chunks * kReleasedKvHeads * 64 * 4,
          seconds,
          limits.gemm_f32};
}

}  // namespace

std::vector<KernelRow> ReleasedKernelRows(const MachineLimits& limits, ThreadPool& pool) {
  const int len = 8192;
  std::vector<KernelRow> rows = {NetworkRow(limits, len, pool)};
  for (const Arithmetic& a : kArithmetics) {
    const Prompt prompt = ReleasedPrompt(len, a.dtype, pool);
    ReleasedPairs pairs;
    const double seconds = ReleasedSeconds(prompt, a.math, &pairs, pool);
    double slot_pairs = 56.0 * (pairs.compressed + pairs.window);
    for (int c = 0; c < kReleasedKvHeads; ++c) {
      slot_pairs += 1.0 * ReleasedGroup(c) * pairs.selected[c];
    }
    const double flops = 4.0 * kDim * (slot_pairs + 28.0 * pairs.dense);
    const double bytes = 2.0 * 4 * kDim * kHeads * len;  // queries read, outputs written
    rows.push_back({"released_nsa, one layer", "8192 tokens, 28/4 heads of 128, B = 32, W = 256",
                    a.name, flops, bytes, seconds, a.Limit(limits)});
    if (a.dtype != DType::kBF16) continue;
    const size_t doubles = ValueSums::Doubles(len, kReleasedKvHeads, kDim);
    std::vector<double> all(doubles), kept(doubles);
    const ValueSums sums{all.data(), kept.data(), prompt.is_vision.data(), len};
    const double summing = Fastest(5, [&] { SumValues(prompt.kv, sums, pool); });
    const double values = 1.0 * len * kReleasedKvHeads * kDim;
    rows.push_back({"sums of values", "8192 tokens, 4 KV heads of 128", "bf16 to f64", 2 * values,
                    2 * values, summing, limits.gemm_f32});
  }
  return rows;
}

void PrintReleasedTable(int len, ThreadPool& pool) {
  std::printf("\nreleased_nsa, 28/4 heads of 128, B = 32, W = 256, %d tokens, one layer\n", len);
  std::printf("arithmetic | released ms | causal_nsa ms | ratio (at most 3 x) | dense ms\n");
  for (const Arithmetic& a : kArithmetics) {
    const Prompt prompt = ReleasedPrompt(len, a.dtype, pool);
    const double released = ReleasedSeconds(prompt, a.math, nullptr, pool);
    const double causal = CausalSeconds(prompt, a.math, pool);
    const double dense = DenseSeconds(prompt, a.math, 2, pool);
    std::printf("%s | %.0f | %.0f | %.2f x | %.0f\n", a.name, released * 1e3, causal * 1e3,
                released / causal, dense * 1e3);
  }
}

}  // namespace videonsa::bench
