#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/causal_nsa.h"
#include "kernels/cpu/kv_append.h"

namespace videonsa::bench {

/// Seconds of the fastest of `runs` runs.
inline double Fastest(int runs, const std::function<void()>& body) {
  double best = 1e30;
  for (int i = 0; i < runs; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count());
  }
  return best;
}

/// 64-byte aligned floats.
class AlignedFloats {
 public:
  explicit AlignedFloats(size_t count)
      : data_(static_cast<float*>(std::aligned_alloc(64, (count * 4 + 63) / 64 * 64 + 64)),
              &std::free) {}
  float* get() const { return data_.get(); }

 private:
  std::unique_ptr<float, decltype(&std::free)> data_;
};

/// One layer of a random prompt in its pages. Random keys are the worst case of selection:
/// neighbouring rows choose different blocks.
struct Prompt {
  Prompt(int len, int num_q_heads, int num_kv_heads, int head_dim, DType dtype, ThreadPool& pool)
      : len(len),
        num_q_heads(num_q_heads),
        q(static_cast<size_t>(len) * num_q_heads * head_dim),
        out(static_cast<size_t>(len) * num_q_heads * head_dim),
        gates(static_cast<size_t>(len) * num_q_heads * 3),
        k_pages(Blocks(len) * num_kv_heads * KvTileElements(head_dim)),
        v_pages(Blocks(len) * num_kv_heads * KvTileElements(head_dim)),
        k_pooled(Blocks(len) * num_kv_heads * head_dim),
        v_pooled(Blocks(len) * num_kv_heads * head_dim),
        is_vision(len, 1) {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    std::vector<float> noise(1 << 20);
    for (float& x : noise) x = normal(rng);
    const auto fill = [&](float* to, size_t count) {
      for (size_t i = 0; i < count; i += 1024) {
        const size_t from = rng() % (noise.size() - 1024);
        std::copy_n(noise.begin() + from, std::min<size_t>(1024, count - i), to + i);
      }
    };
    fill(q.get(), static_cast<size_t>(len) * num_q_heads * head_dim);
    fill(gates.get(), static_cast<size_t>(len) * num_q_heads * 3);
    for (int b = 0; b < Blocks(len); ++b) page_ids.push_back(b);
    kv.dtype = dtype;
    kv.k_pages = k_pages.get();
    kv.v_pages = v_pages.get();
    kv.k_pooled = k_pooled.get();
    kv.v_pooled = v_pooled.get();
    kv.page_ids = page_ids.data();
    kv.num_kv_heads = num_kv_heads;
    kv.head_dim = head_dim;
    const int64_t width = int64_t{num_kv_heads} * head_dim;
    std::vector<float> k(1024 * width), v(1024 * width);
    for (int begin = 0; begin < len; begin += 1024) {
      const int count = std::min(1024, len - begin);
      fill(k.data(), count * width);
      fill(v.data(), count * width);
      AppendKv({kv, {k.data(), width}, {v.data(), width}, begin, count}, pool);
    }
    scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  }

  static int64_t Blocks(int len) { return (len + kKvPageTokens - 1) / kKvPageTokens; }
  int64_t row() const { return int64_t{num_q_heads} * kv.head_dim; }
  ConstRows Q() const { return {q.get(), row()}; }
  ConstRows Gates() const { return {gates.get(), int64_t{num_q_heads} * 3}; }
  MutableRows Out() const { return {out.get(), row()}; }

  int len;
  int num_q_heads;
  AlignedFloats q, out, gates, k_pages, v_pages, k_pooled, v_pooled;
  std::vector<uint8_t> is_vision;
  std::vector<int32_t> page_ids;
  PagedKv kv;
  float scale = 0;
};

/// What the machine does at best: the denominators of every share.
struct MachineLimits {
  double gemm_f32 = 0;   ///< FLOP/s of the project's own GEMM (oneDNN tiles), all threads
  double gemm_bf16 = 0;  ///< 0 if the machine has no bf16 products
  double read = 0;       ///< bytes/s of a sum over memory larger than every cache
};

/// One kernel measured: a row of the table in kernels/README.md.
struct KernelRow {
  std::string kernel;
  std::string shape;
  std::string arithmetic;
  double flops = 0;
  double bytes = 0;  ///< least that must be read and written once
  double seconds = 0;
  double flop_limit = 0;  ///< of the arithmetic, from MachineLimits
};

struct Arithmetic {
  const char* name;
  DType dtype;
  MathType math;
  double Limit(const MachineLimits& limits) const {
    return math == MathType::kF32 ? limits.gemm_f32 : limits.gemm_bf16;
  }
};
inline constexpr Arithmetic kArithmetics[] = {{"f32", DType::kF32, MathType::kF32},
                                              {"bf16", DType::kBF16, MathType::kBF16}};

/// Seconds of dense prefill of the whole prompt, all rows measured.
double DenseSeconds(const Prompt& prompt, MathType math, int runs, ThreadPool& pool);

/// The same from eight strips of 512 rows, each in the middle of an eighth of the prompt, scaled to
/// their eighths. A row's cost is linear in its position, so the midpoint rule is exact but for
/// noise. Requires: a prompt of at least 8192 tokens, a multiple of 4096.
double DenseSecondsFromStrips(const Prompt& prompt, MathType math, ThreadPool& pool);

/// Parts of a causal_nsa layer, each over all spans and KV heads of the prompt, B = 16, W = 256.
struct CausalParts {
  double compressed = 0;  ///< pooled tiles, compressed attention and the choice from its weights
  double others = 0;      ///< window, selection and gated combine
};
CausalParts MeasureCausalParts(const Prompt& prompt, MathType math, ThreadPool& pool);

/// The branch kernels of causal_nsa, each on its own; 16/4 heads of 64, B = 16, W = 256.
std::vector<KernelRow> NsaKernelRows(const MachineLimits& limits, const Arithmetic& arithmetic,
                                     int len, ThreadPool& pool);

/// Everything else below kernels/cpu.
std::vector<KernelRow> OtherKernelRows(const MachineLimits& limits, ThreadPool& pool);

/// released_nsa as a whole, 28/4 heads of 128, B = 32, W = 256, and two of its own kernels.
std::vector<KernelRow> ReleasedKernelRows(const MachineLimits& limits, ThreadPool& pool);

/// Prints rows as a Markdown table with the machine and the date.
void PrintMarkdown(const MachineLimits& limits, int threads, const std::vector<KernelRow>& rows);

/// Prints released_nsa's time (and dense's and causal_nsa's) at the 7B shapes.
void PrintReleasedTable(int len, ThreadPool& pool);

}  // namespace videonsa::bench
