#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
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

/// Prints a table of the branch kernels, each on its own.
void PrintKernelTable(const MachineLimits& limits, ThreadPool& pool);

/// Prints released_nsa's time (and dense's and causal_nsa's) at the 7B shapes.
void PrintReleasedTable(int len, ThreadPool& pool);

}  // namespace videonsa::bench
