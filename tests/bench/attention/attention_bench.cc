// attention_bench [machine|dense|causal|released|decode|sparse|table]...: ratios of the attention
// kernels to each other and to the machine's limits; "table" prints the table of kernels/README.md.
// Every figure is the fastest of a few runs. Without a name: everything but the table.
#include <cstdio>
#include <cstring>
#include <string>

#include "kernels/cpu/dense_attention.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sparse_prefill.h"
#include "tests/bench/attention/bench_case.h"

namespace videonsa::bench {
namespace {

constexpr int kThreads = 2;

double GemmRate(DType dtype, ThreadPool& pool) {
  const int64_t n = 2048;
  PackedMatrix w{dtype, n, n, nullptr};
  AlignedFloats packed(PackedBytes(dtype, n, n) / 4), x(n * n), out(n * n);
  w.data = packed.get();
  std::vector<float> weights(n, 0.37f);
  for (int64_t row = 0; row < n; ++row) PackRow(w, row, weights.data());
  if (dtype == DType::kF32) {
    std::fill(x.get(), x.get() + n * n, 0.5f);
  } else {
    std::fill_n(reinterpret_cast<uint16_t*>(x.get()), n * n, uint16_t{0x3F00});
  }
  Gemm gemm(pool);
  gemm.Prepare(w);
  GemmParams p;
  p.x = x.get();
  p.x_stride = n;
  p.m = n;
  p.w = w;
  p.out = out.get();
  p.out_stride = n;
  return 2.0 * n * n * n / Fastest(8, [&] { gemm.Run(p); });
}

double ReadRate(ThreadPool& pool) {
  const int64_t floats = 128 << 20, tasks = 64;
  AlignedFloats memory(floats);
  std::fill(memory.get(), memory.get() + floats, 1.0f);
  std::vector<double> sums(tasks);
  const double seconds = Fastest(5, [&] {
    pool.ParallelFor(tasks, [&](int64_t task, int) {
      const float* from = memory.get() + task * (floats / tasks);
      float sum[64] = {};
      for (int64_t i = 0; i < floats / tasks; i += 64) {
        for (int j = 0; j < 64; ++j) sum[j] += from[i + j];
      }
      for (float s : sum) sums[task] += s;
    });
  });
  return floats * 4.0 / seconds;
}

MachineLimits Measure(ThreadPool& pool) {
  MachineLimits limits;
  limits.gemm_f32 = GemmRate(DType::kF32, pool);
  if (Gemm::MachineHasBf16()) limits.gemm_bf16 = GemmRate(DType::kBF16, pool);
  limits.read = ReadRate(pool);
  std::printf("machine, %d threads: GEMM f32 %.0f, bf16 %.0f GFLOP/s; read %.1f GB/s\n", kThreads,
              limits.gemm_f32 / 1e9, limits.gemm_bf16 / 1e9, limits.read / 1e9);
  return limits;
}

double DenseRowsSeconds(const Prompt& prompt, MathType math, int begin, int end, int runs,
                        ThreadPool& pool) {
  AlignedFloats scratch(DensePrefillScratchBytes(pool.num_threads(), prompt.num_q_heads,
                                                 prompt.kv.num_kv_heads, prompt.kv.head_dim) /
                        4);
  DensePrefillParams p;
  p.kv = prompt.kv;
  p.q = {prompt.q.get() + begin * prompt.row(), prompt.row()};
  p.out = {prompt.out.get() + begin * prompt.row(), prompt.row()};
  p.num_q_heads = prompt.num_q_heads;
  p.row_begin = begin;
  p.row_end = end;
  p.scale = prompt.scale;
  p.math = math;
  return Fastest(runs, [&] { DensePrefill(p, {scratch.get(), 0}, pool); });
}

double CausalSeconds(const Prompt& prompt, MathType math, int blocks, int window, int runs,
                     NsaPairs* pairs, ThreadPool& pool) {
  const size_t bytes =
      CausalNsaScratchBytes(pool.num_threads(), prompt.num_q_heads, prompt.kv, prompt.len, blocks);
  AlignedFloats scratch(bytes / 4);
  CausalNsaParams p;
  p.kv = prompt.kv;
  p.q = prompt.Q();
  p.gates = prompt.Gates();
  p.out = prompt.Out();
  p.is_vision = prompt.is_vision.data();
  p.num_q_heads = prompt.num_q_heads;
  p.row_end = prompt.len;
  p.selected_blocks = blocks;
  p.window = window;
  p.scale = prompt.scale;
  p.math = math;
  p.pairs = pairs;
  return Fastest(runs, [&] {
    if (pairs != nullptr) *pairs = NsaPairs();
    CausalNsaPrefill(p, {scratch.get(), bytes}, pool);
  });
}

void PrintDenseTable(const MachineLimits& limits, ThreadPool& pool) {
  std::printf("\ndense prefill, 4096 tokens | arithmetic | ms | GFLOP/s | share of GEMM (70 %%)\n");
  const int shapes[][3] = {{16, 4, 64}, {28, 4, 128}};
  for (const auto& [heads, kv_heads, dim] : shapes) {
    for (const Arithmetic& a : kArithmetics) {
      const Prompt prompt(4096, heads, kv_heads, dim, a.dtype, pool);
      const double seconds = DenseSeconds(prompt, a.math, 7, pool);
      const double flops = 4.0 * dim * heads * 4096.0 * 4097.0 / 2.0;
      const double limit = a.Limit(limits);
      std::printf("%2d/%d heads of %3d | %4s | %.1f | %.0f | %.0f %%\n", heads, kv_heads, dim,
                  a.name, seconds * 1e3, flops / seconds / 1e9, 100 * flops / seconds / limit);
    }
  }
}

// Targets: 2, 6 and 10 times dense at 8K, 32K and 64K tokens.
void PrintCausalTable(ThreadPool& pool) {
  std::printf("\ncausal_nsa against dense, 16/4 heads of 64, B = 16, W = 256, one layer\n");
  std::printf(
      "dense is measured on eight strips of 512 rows in the middle of each eighth of the "
      "prompt and scaled to\nits eighth: a row costs in proportion to its position, so "
      "this is its integral; at 8192 tokens all rows\nare measured as well, beside it\n");
  std::printf(
      "tokens | arithmetic | dense ms | causal_nsa ms | ratio (target) | pairs used | us a "
      "token: all | compressed | the rest\n");
  const std::pair<int, double> cases[] = {{8192, 2}, {32768, 6}, {65536, 10}};
  double rest_at_first[2] = {};
  for (const auto& [len, target] : cases) {
    for (int i = 0; i < 2; ++i) {
      const Arithmetic& a = kArithmetics[i];
      const Prompt prompt(len, 16, 4, 64, a.dtype, pool);
      NsaPairs pairs;
      const double nsa = CausalSeconds(prompt, a.math, 16, 256, len > 32768 ? 2 : 3, &pairs, pool);
      const double dense = DenseSecondsFromStrips(prompt, a.math, pool);
      const CausalParts parts = MeasureCausalParts(prompt, a.math, pool);
      const double rest = (nsa - parts.compressed) / len * 1e6;
      if (len == 8192) rest_at_first[i] = rest;
      std::printf(
          "%6d | %4s | %.0f | %.1f | %.2f x (%.0f x) | %.1f %% | %.2f | %.2f | %.2f", len, a.name,
          dense * 1e3, nsa * 1e3, dense / nsa, target,
          100.0 * (pairs.compressed + pairs.selected + pairs.window) / (0.5 * len * (len + 1.0)),
          nsa / len * 1e6, parts.compressed / len * 1e6, rest);
      if (len == 8192) {
        std::printf(" | dense, all rows: %.0f ms", DenseSeconds(prompt, a.math, 3, pool) * 1e3);
      } else {
        std::printf(" | the rest against 8192 tokens: %.2f x (1.5 x)", rest / rest_at_first[i]);
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}

// One new row a sequence; the limit is reading the cache once.
void PrintDecodeTable(const MachineLimits& limits, ThreadPool& pool) {
  std::printf("\ndense decode, 16/4 heads of 64 | arithmetic | ms | GB/s | share of read\n");
  for (const Arithmetic& a : kArithmetics) {
    const Prompt prompt(65536, 16, 4, 64, a.dtype, pool);
    for (int num_seqs : {1, 32}) {
      const int len = prompt.len / num_seqs;
      std::vector<const int32_t*> tables;
      const std::vector<int32_t> lens(num_seqs, len);
      for (int i = 0; i < num_seqs; ++i)
        tables.push_back(&prompt.page_ids[i * len / kKvPageTokens]);
      AlignedFloats scratch(DenseDecodeScratchBytes(pool.num_threads(), num_seqs, len, 16, 4, 64) /
                            4);
      const DecodeParams p{prompt.kv, prompt.Q(), prompt.Out(), tables.data(), lens.data(),
                           num_seqs,  16,         prompt.scale, a.math};
      const double seconds = Fastest(20, [&] { DenseDecode(p, {scratch.get(), 0}, pool); });
      const double bytes = 2.0 * prompt.len * 4 * 64 * SizeOf(a.dtype);
      std::printf("%2d x %5d keys | %4s | %.2f | %.1f | %.0f %%\n", num_seqs, len, a.name,
                  seconds * 1e3, bytes / seconds / 1e9, 100 * bytes / seconds / limits.read);
    }
  }
}

const char* NameOf(SparsePattern pattern) {
  switch (pattern) {
    case SparsePattern::kTriShape:
      return "tri_shape";
    case SparsePattern::kMInference:
      return "minference";
    case SparsePattern::kFlexPrefill:
      return "flexprefill";
    case SparsePattern::kXAttention:
      return "xattention";
  }
  return "";
}

void PrintSparseTable(ThreadPool& pool) {
  std::printf("\ntraining-free patterns, 32768 tokens, 16/4 heads of 64, random data, one layer\n");
  std::printf("pattern | arithmetic | ms | ratio to dense | pairs used\n");
  for (const Arithmetic& a : kArithmetics) {
    const Prompt prompt(32768, 16, 4, 64, a.dtype, pool);
    const double dense = DenseSeconds(prompt, a.math, 1, pool);
    for (SparsePattern pattern : {SparsePattern::kTriShape, SparsePattern::kMInference,
                                  SparsePattern::kFlexPrefill, SparsePattern::kXAttention}) {
      int64_t pairs = 0;
      SparsePrefillParams p;
      p.kv = prompt.kv;
      p.q = prompt.Q();
      p.out = prompt.Out();
      p.pattern = pattern;
      p.num_q_heads = 16;
      p.num_rows = prompt.len;
      p.scale = prompt.scale;
      p.math = a.math;
      p.pairs_all_heads = &pairs;
      AlignedFloats scratch(SparsePrefillScratchBytes(p, pool.num_threads(), prompt.len) / 4);
      const double seconds = Fastest(1, [&] { SparsePrefill(p, {scratch.get(), 0}, pool); });
      std::printf("%s | %s | %.0f | %.2f x | %.0f %%\n", NameOf(pattern), a.name, seconds * 1e3,
                  dense / seconds, 100.0 * pairs / 16 / (0.5 * prompt.len * (prompt.len + 1.0)));
    }
  }
}

void PrintTable(const MachineLimits& limits, ThreadPool& pool) {
  std::vector<KernelRow> rows = OtherKernelRows(limits, pool);
  const auto append = [&](std::vector<KernelRow> more) {
    rows.insert(rows.end(), more.begin(), more.end());
  };
  for (const int len : {8192, 65536}) {
    for (const Arithmetic& a : kArithmetics) append(NsaKernelRows(limits, a, len, pool));
  }
  append(ReleasedKernelRows(limits, pool));
  PrintMarkdown(limits, kThreads, rows);
}

}  // namespace

double DenseSeconds(const Prompt& prompt, MathType math, int runs, ThreadPool& pool) {
  return DenseRowsSeconds(prompt, math, 0, prompt.len, runs, pool);
}

double DenseSecondsFromStrips(const Prompt& prompt, MathType math, ThreadPool& pool) {
  constexpr int kStrips = 8, kRows = 512;
  const int width = prompt.len / kStrips;
  double seconds = 0;
  for (int strip = 0; strip < kStrips; ++strip) {
    const int begin = strip * width + (width - kRows) / 2;
    seconds += DenseRowsSeconds(prompt, math, begin, begin + kRows, 2, pool) * width / kRows;
  }
  return seconds;
}

int Run(const std::vector<std::string>& wanted) {
  ThreadPool pool(kThreads);
  const auto wants = [&](const char* name) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end();
  };
  const MachineLimits limits = Measure(pool);
  if (wants("dense")) PrintDenseTable(limits, pool);
  if (wants("causal")) PrintCausalTable(pool);
  if (wants("released")) PrintReleasedTable(8192, pool);
  if (wants("decode")) PrintDecodeTable(limits, pool);
  if (wants("sparse")) PrintSparseTable(pool);
  if (!wanted.empty() && wants("table")) PrintTable(limits, pool);
  return 0;
}

}  // namespace videonsa::bench

int main(int argc, char** argv) {
  return videonsa::bench::Run(std::vector<std::string>(argv + 1, argv + argc));
}
