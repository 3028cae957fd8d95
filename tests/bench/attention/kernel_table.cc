// The rest of kernels/cpu, one row a kernel, and the Markdown table of them all.
#include <cstdio>
#include <ctime>
#include <fstream>

#include "kernels/cpu/attention_mass.h"
#include "kernels/cpu/dense_attention.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/resize.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/sample_token.h"
#include "kernels/cpu/sparse_prefill.h"
#include "kernels/cpu/vision_attention.h"
#include "tests/bench/attention/bench_case.h"

namespace videonsa::bench {
namespace {

constexpr int kRows = 4096, kHidden = 1024, kInner = 2816, kHeads = 16, kKvHeads = 4, kDim = 64;
constexpr int64_t kRowsPerTask = 64;  // of the kernels that run on one thread

std::string Sizes(int64_t m, int64_t n, int64_t k) {
  return std::to_string(m) + " x " + std::to_string(k) + " x " + std::to_string(n);
}

PackedMatrix RandomMatrix(DType dtype, int64_t n, int64_t k, AlignedFloats& data) {
  const PackedMatrix w{dtype, n, k, data.get()};
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t i = 0; i < k; ++i) row[i] = static_cast<float>((r * 31 + i * 17) % 97) / 97 - 0.5f;
    PackRow(w, r, row.data());
  }
  return w;
}

void AddGemms(const MachineLimits& limits, ThreadPool& pool, std::vector<KernelRow>& rows) {
  for (const Arithmetic& a : kArithmetics) {
    if (a.Limit(limits) == 0) continue;
    const double size = static_cast<double>(SizeOf(a.dtype));
    AlignedFloats gate_data(PackedBytes(a.dtype, kInner, kHidden) / 4);
    AlignedFloats up_data(PackedBytes(a.dtype, kInner, kHidden) / 4);
    const PackedMatrix gate = RandomMatrix(a.dtype, kInner, kHidden, gate_data);
    const PackedMatrix up = RandomMatrix(a.dtype, kInner, kHidden, up_data);
    AlignedFloats x(static_cast<size_t>(kRows) * kHidden), out(static_cast<size_t>(kRows) * kInner);
    std::fill(x.get(), x.get() + kRows * kHidden, 0.0f);
    Gemm gemm(pool);
    gemm.Prepare(gate);
    gemm.Prepare(up);
    for (const int m : {kRows, 1}) {
      const GemmParams p{x.get(),   kHidden,     m,     gate, nullptr, GemmEpilogue::kStore,
                         out.get(), DType::kF32, kInner};
      const double bytes = size * kInner * kHidden + m * (size * kHidden + 4.0 * kInner);
      rows.push_back({"GEMM", Sizes(m, kInner, kHidden), a.name, 2.0 * m * kInner * kHidden, bytes,
                      Fastest(m == 1 ? 50 : 5, [&] { gemm.Run(p); }), a.Limit(limits)});
    }
    const SwiGluParams s{x.get(), kHidden, kRows,     gate,    up,
                         nullptr, nullptr, out.get(), a.dtype, kInner};
    rows.push_back({"GEMM with SwiGLU", Sizes(kRows, 2 * kInner, kHidden), a.name,
                    4.0 * kRows * kInner * kHidden,
                    2 * size * kInner * kHidden + size * kRows * (kHidden + kInner),
                    Fastest(5, [&] { gemm.Run(s); }), a.Limit(limits)});
  }
}

void AddRowKernels(const MachineLimits& limits, ThreadPool& pool, std::vector<KernelRow>& rows) {
  const int64_t wide = (kHeads + 2 * kKvHeads) * kDim;
  AlignedFloats x(static_cast<size_t>(kRows) * wide), out(static_cast<size_t>(kRows) * kHidden);
  AlignedFloats angles(static_cast<size_t>(kRows) * kDim);
  std::fill(x.get(), x.get() + kRows * wide, 0.5f);
  std::fill(angles.get(), angles.get() + kRows * kDim, 0.7f);
  const std::vector<float> weight(kHidden, 1.0f);
  const auto split = [&](auto body) {
    return Fastest(10, [&] {
      pool.ParallelFor(kRows / kRowsPerTask, [&](int64_t task, int) { body(task * kRowsPerTask); });
    });
  };
  const double norm = split([&](int64_t row) {
    RmsNorm({x.get() + row * kHidden, kHidden, weight.data(), 1e-6f, kRowsPerTask, kHidden,
             reinterpret_cast<uint16_t*>(out.get()) + row * kHidden, DType::kBF16, kHidden});
  });
  rows.push_back({"RMSNorm", Sizes(kRows, 1, kHidden), "f32 to bf16", 4.0 * kRows * kHidden,
                  6.0 * kRows * kHidden, norm, limits.gemm_f32});
  const double convert = split([&](int64_t row) {
    ConvertRows({x.get() + row * kHidden, kHidden, nullptr, kRowsPerTask, kHidden,
                 reinterpret_cast<uint16_t*>(out.get()) + row * kHidden, DType::kBF16, kHidden});
  });
  rows.push_back({"copy and convert rows", Sizes(kRows, 1, kHidden), "f32 to bf16", 0,
                  6.0 * kRows * kHidden, convert, limits.gemm_f32});
  const int heads = kHeads + kKvHeads;
  const double rope = split([&](int64_t row) {
    Rope({x.get() + row * wide, wide, angles.get() + row * kDim / 2, angles.get() + row * kDim / 2,
          nullptr, kRowsPerTask, heads, kDim});
  });
  rows.push_back({"M-RoPE, in place", "4096 tokens, 20 heads of 64", "f32",
                  3.0 * kRows * heads * kDim, 8.0 * kRows * heads * kDim, rope, limits.gemm_f32});
}

void AddDense(const MachineLimits& limits, ThreadPool& pool, std::vector<KernelRow>& rows) {
  for (const Arithmetic& a : kArithmetics) {
    const double size = static_cast<double>(SizeOf(a.dtype));
    const Prompt prompt(kRows, kHeads, kKvHeads, kDim, a.dtype, pool);
    const int64_t width = kKvHeads * kDim;
    const double append = Fastest(10, [&] {
      AppendKv({prompt.kv, {prompt.q.get(), width}, {prompt.out.get(), width}, 0, kRows}, pool);
    });
    rows.push_back({"KV append with pooling", "4096 tokens, 4 heads of 64", a.name,
                    2.0 * kRows * width, (8 + 2 * size) * kRows * width, append, limits.gemm_f32});
    rows.push_back({"dense prefill", "4096 tokens, 16/4 heads of 64", a.name,
                    4.0 * kDim * kHeads * kRows * (kRows + 1.0) / 2,
                    (8.0 * kHeads + 2 * size * kKvHeads) * kRows * kDim,
                    DenseSeconds(prompt, a.math, 5, pool), a.Limit(limits)});
    const Prompt cache(65536, kHeads, kKvHeads, kDim, a.dtype, pool);
    const int32_t* table = cache.page_ids.data();
    const int32_t len = cache.len;
    AlignedFloats scratch(
        DenseDecodeScratchBytes(pool.num_threads(), 1, len, kHeads, kKvHeads, kDim) / 4);
    const DecodeParams d{cache.kv, cache.Q(), cache.Out(), &table, &len,
                         1,        kHeads,    cache.scale, a.math};
    rows.push_back({"dense decode", "1 row, 65536 keys, 16/4 heads of 64", a.name,
                    4.0 * kDim * kHeads * len, 2.0 * len * kKvHeads * kDim * size,
                    Fastest(10,
                            [&] {
                              DenseDecode(d, {scratch.get(), 0}, pool);
                            }),
                    a.Limit(limits)});
    if (a.dtype != DType::kF32) continue;
    const int mass_rows = 64;
    std::vector<double> mass(static_cast<size_t>(Prompt::Blocks(len)));
    AlignedFloats room(AttentionMassScratchBytes(pool.num_threads(), kHeads, kKvHeads, len) / 4);
    AttentionMassParams m;
    m.kv = cache.kv;
    m.q = cache.Q();
    m.num_q_heads = kHeads;
    m.row_begin = len - mass_rows;
    m.row_end = len;
    m.scale = cache.scale;
    m.mass = mass.data();
    rows.push_back({"attention mass (evidence)", "64 rows, 65536 keys, 16/4 heads of 64", "f32",
                    2.0 * kDim * kHeads * mass_rows * len, 4.0 * len * kKvHeads * kDim,
                    Fastest(3,
                            [&] {
                              AddAttentionMass(m, {room.get(), 0}, pool);
                            }),
                    limits.gemm_f32});
  }
}

void AddPatterns(const MachineLimits& limits, ThreadPool& pool, std::vector<KernelRow>& rows) {
  const int len = 16384;
  const Arithmetic& a = kArithmetics[1];
  const Prompt prompt(len, kHeads, kKvHeads, kDim, a.dtype, pool);
  const std::pair<SparsePattern, const char*> patterns[] = {
      {SparsePattern::kTriShape, "tri_shape"},
      {SparsePattern::kMInference, "minference"},
      {SparsePattern::kFlexPrefill, "flexprefill"},
      {SparsePattern::kXAttention, "xattention"}};
  for (const auto& [pattern, name] : patterns) {
    int64_t pairs = 0;
    SparsePrefillParams p;
    p.kv = prompt.kv;
    p.q = prompt.Q();
    p.out = prompt.Out();
    p.pattern = pattern;
    p.num_q_heads = kHeads;
    p.num_rows = len;
    p.scale = prompt.scale;
    p.math = a.math;
    p.pairs_all_heads = &pairs;
    AlignedFloats scratch(SparsePrefillScratchBytes(p, pool.num_threads(), len) / 4);
    const double seconds = Fastest(1, [&] { SparsePrefill(p, {scratch.get(), 0}, pool); });
    rows.push_back({std::string(name) + ", with its search", "16384 tokens, 16/4 heads of 64",
                    a.name, 4.0 * kDim * pairs, (8.0 * kHeads + 4.0 * kKvHeads) * len * kDim,
                    seconds, a.Limit(limits)});
  }
}

void AddVisionAndRest(const MachineLimits& limits, ThreadPool& pool, std::vector<KernelRow>& rows) {
  const int heads = 16, dim = 80, segment = 64, count = 64;
  const int64_t patches = segment * count, width = int64_t{3} * heads * dim;
  AlignedFloats qkv(static_cast<size_t>(patches * width));
  AlignedFloats out(static_cast<size_t>(patches * heads * dim));
  for (int64_t i = 0; i < patches * width; ++i) qkv.get()[i] = static_cast<float>(i % 89) / 89;
  std::vector<int32_t> borders;
  for (int i = 0; i <= count; ++i) borders.push_back(i * segment);
  AlignedFloats scratch(VisionAttentionScratchBytes(pool.num_threads(), segment, dim) / 4);
  const VisionAttentionParams v{qkv.get(), width, borders.data(), count,       heads,      dim,
                                0.1f,      true,  out.get(),      DType::kF32, heads * dim};
  rows.push_back({"vision attention, windows of 64", "4096 patches, 16 heads of 80", "bf16",
                  4.0 * dim * heads * patches * segment, 16.0 * patches * heads * dim,
                  Fastest(5, [&] { VisionAttention(v, scratch.get(), pool); }), limits.gemm_bf16});
  const int vocab = 152064;
  std::vector<float> logits(vocab, 0.25f);
  std::vector<int32_t> ids(vocab);
  SampleParams greedy;
  greedy.logits = logits.data();
  greedy.vocab = vocab;
  greedy.scratch = ids.data();
  rows.push_back({"sample, greedy, one thread", "vocabulary of 152064", "f32", 1.0 * vocab,
                  4.0 * vocab, Fastest(20, [&] { SampleToken(greedy); }), limits.gemm_f32});
  const int in_h = 1080, in_w = 1920, out_h = 280, out_w = 504;
  BicubicResizer resizer(in_h, in_w, out_h, out_w);
  const std::vector<uint8_t> rgb(static_cast<size_t>(in_h) * in_w * 3, 100);
  RgbxImage small;
  const double taps_x = 4.0 * in_w / out_w + 1, taps_y = 4.0 * in_h / out_h + 1;
  rows.push_back({"bicubic resize, one thread", "1920 x 1080 to 504 x 280", "f32",
                  2.0 * 4 * (1.0 * in_h * out_w * taps_x + 1.0 * out_h * out_w * taps_y),
                  3.0 * in_h * in_w + 16.0 * out_h * out_w,
                  Fastest(5, [&] { resizer.ResizeRounded(rgb.data(), &small); }), limits.gemm_f32});
}

std::string MachineName() {
  std::ifstream cpus("/proc/cpuinfo");
  for (std::string line; std::getline(cpus, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), value >= 100 ? "%.0f" : value >= 1 ? "%.1f" : "%.3f", value);
  return text;
}

}  // namespace

std::vector<KernelRow> OtherKernelRows(const MachineLimits& limits, ThreadPool& pool) {
  std::vector<KernelRow> rows;
  AddGemms(limits, pool, rows);
  AddRowKernels(limits, pool, rows);
  AddDense(limits, pool, rows);
  AddPatterns(limits, pool, rows);
  AddVisionAndRest(limits, pool, rows);
  return rows;
}

void PrintMarkdown(const MachineLimits& limits, int threads, const std::vector<KernelRow>& rows) {
  char date[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof(date), "%F", std::gmtime(&now));
  std::printf("%s, %d threads, %s. Limits: GEMM %.0f GFLOP/s in f32 and %.0f in bf16, ",
              MachineName().c_str(), threads, date, limits.gemm_f32 / 1e9, limits.gemm_bf16 / 1e9);
  std::printf("reading memory %.1f GB/s.\n\n", limits.read / 1e9);
  std::printf("| kernel | shape | arithmetic | GFLOP | MB | ms | of GEMM rate | of read rate |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const KernelRow& row : rows) {
    std::printf("| %s | %s | %s | %s | %s | %s | %.0f %% | %.0f %% |\n", row.kernel.c_str(),
                row.shape.c_str(), row.arithmetic.c_str(), Number(row.flops / 1e9).c_str(),
                Number(row.bytes / 1e6).c_str(), Number(row.seconds * 1e3).c_str(),
                100 * row.flops / row.seconds / row.flop_limit,
                100 * row.bytes / row.seconds / limits.read);
  }
}

}  // namespace videonsa::bench
