#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/common/bf16.h"
#include "kernels/cpu/kv_append.h"
#include "kernels/reference/attention_case.h"

namespace videonsa {

/// Random numbers exact in bf16, so that both page types hold the same values.
inline void FillNormal(std::vector<float>& to, size_t count, std::mt19937& rng, float size = 1) {
  std::normal_distribution<float> normal(0.0f, size);
  to.resize(count);
  for (float& x : to) x = FromBf16(RoundToBf16(normal(rng)));
}

/// 64-byte aligned bytes, every one 0xFF: NaN in every float type.
class GarbageBytes {
 public:
  explicit GarbageBytes(size_t bytes)
      : size_((bytes + 63) / 64 * 64 + 64), data_(std::aligned_alloc(64, size_), &std::free) {
    std::memset(data_.get(), 0xFF, size_);
  }
  void* get() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  size_t size_;
  std::unique_ptr<void, decltype(&std::free)> data_;
};

/// Scratch full of NaN, so that a kernel that reads what it did not write is found out.
struct GarbageScratch {
  explicit GarbageScratch(size_t bytes) : memory(bytes) {}
  Scratch get() const { return {memory.get(), memory.size()}; }
  GarbageBytes memory;
};

/// Pages of one sequence, scattered over a pool twice as large, everything unused is NaN.
class TestPages {
 public:
  TestPages(DType dtype, int num_kv_heads, int head_dim, int max_len, std::mt19937& rng)
      : ids_(Pages(max_len)),
        k_(2 * ids_.size() * num_kv_heads * KvTileElements(head_dim) * SizeOf(dtype)),
        v_(2 * ids_.size() * num_kv_heads * KvTileElements(head_dim) * SizeOf(dtype)),
        k_pooled_(2 * ids_.size() * num_kv_heads * head_dim * sizeof(float)),
        v_pooled_(2 * ids_.size() * num_kv_heads * head_dim * sizeof(float)) {
    std::vector<int32_t> all(2 * ids_.size());
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), rng);
    std::copy_n(all.begin(), ids_.size(), ids_.begin());
    kv_.dtype = dtype;
    kv_.k_pages = k_.get();
    kv_.v_pages = v_.get();
    kv_.k_pooled = static_cast<float*>(k_pooled_.get());
    kv_.v_pooled = static_cast<float*>(v_pooled_.get());
    kv_.page_ids = ids_.data();
    kv_.num_kv_heads = num_kv_heads;
    kv_.head_dim = head_dim;
  }
  TestPages(const TestPages&) = delete;

  const PagedKv& kv() const { return kv_; }

  /// Appends rows [begin, end) of the case.
  void Append(const reference::AttentionCase& c, int begin, int end, ThreadPool& pool) {
    KvAppendParams p;
    p.kv = kv_;
    p.k = {c.K(begin, 0), int64_t{c.num_kv_heads} * c.head_dim};
    p.v = {c.V(begin, 0), int64_t{c.num_kv_heads} * c.head_dim};
    p.token_begin = begin;
    p.num_tokens = end - begin;
    AppendKv(p, pool);
  }

 private:
  static size_t Pages(int len) {
    return static_cast<size_t>(std::max(1, (len + kKvPageTokens - 1) / kKvPageTokens));
  }
  std::vector<int32_t> ids_;
  GarbageBytes k_, v_, k_pooled_, v_pooled_;
  PagedKv kv_;
};

/// A random case of the given shape.
inline reference::AttentionCase RandomCase(int len, int num_q_heads, int num_kv_heads, int head_dim,
                                           std::mt19937& rng, float size = 1) {
  reference::AttentionCase c;
  c.len = len;
  c.num_q_heads = num_q_heads;
  c.num_kv_heads = num_kv_heads;
  c.head_dim = head_dim;
  FillNormal(c.q, static_cast<size_t>(len) * num_q_heads * head_dim, rng, size);
  FillNormal(c.k, static_cast<size_t>(len) * num_kv_heads * head_dim, rng, size);
  FillNormal(c.v, static_cast<size_t>(len) * num_kv_heads * head_dim, rng);
  return c;
}

}  // namespace videonsa
