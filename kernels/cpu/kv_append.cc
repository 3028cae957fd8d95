#include "kernels/cpu/kv_append.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "kernels/common/bf16.h"

namespace videonsa {
namespace {

struct Append {
  const KvAppendParams& p;

  int64_t TileIndex(int block, int kv_head) const {
    return int64_t{p.kv.page_ids[block]} * p.kv.num_kv_heads + kv_head;
  }

  // Positions [begin, end) lie in block `block`.
  void Write(int block, int kv_head, int begin, int end) const {
    const int head_dim = p.kv.head_dim;
    const int64_t offset = TileIndex(block, kv_head) * KvTileElements(head_dim);
    for (int position = begin; position < end; ++position) {
      const int64_t row = position - p.token_begin;
      const float* k = p.k.data + row * p.k.row_stride + int64_t{kv_head} * head_dim;
      const float* v = p.v.data + row * p.v.row_stride + int64_t{kv_head} * head_dim;
      const int token = position % kKvPageTokens;
      if (p.kv.dtype == DType::kF32) {
        float* k_tile = static_cast<float*>(p.kv.k_pages) + offset;
        float* v_tile = static_cast<float*>(p.kv.v_pages) + offset;
        for (int d = 0; d < head_dim; ++d) k_tile[d * kKvPageTokens + token] = k[d];
        std::memcpy(v_tile + int64_t{token} * head_dim, v, sizeof(float) * head_dim);
      } else {
        uint16_t* k_tile = static_cast<uint16_t*>(p.kv.k_pages) + offset;
        uint16_t* v_tile = static_cast<uint16_t*>(p.kv.v_pages) + offset;
        for (int d = 0; d < head_dim; ++d) {
          k_tile[((d / 2) * kKvPageTokens + token) * 2 + d % 2] = RoundToBf16(k[d]);
          v_tile[((token / 2) * head_dim + d) * 2 + token % 2] = RoundToBf16(v[d]);
        }
      }
    }
  }

  void Pool(int block, int kv_head) const {
    const int head_dim = p.kv.head_dim;
    const int64_t tile = TileIndex(block, kv_head);
    const int64_t offset = tile * KvTileElements(head_dim);
    float* k_pooled = p.kv.k_pooled + tile * head_dim;
    float* v_pooled = p.kv.v_pooled + tile * head_dim;
    for (int d = 0; d < head_dim; ++d) {
      float k_sum = 0, v_sum = 0;
      for (int token = 0; token < kKvPageTokens; ++token) {
        if (p.kv.dtype == DType::kF32) {
          k_sum += static_cast<const float*>(p.kv.k_pages)[offset + d * kKvPageTokens + token];
          v_sum += static_cast<const float*>(p.kv.v_pages)[offset + int64_t{token} * head_dim + d];
        } else {
          k_sum += FromBf16(static_cast<const uint16_t*>(
              p.kv.k_pages)[offset + ((d / 2) * kKvPageTokens + token) * 2 + d % 2]);
          v_sum += FromBf16(static_cast<const uint16_t*>(
              p.kv.v_pages)[offset + ((token / 2) * head_dim + d) * 2 + token % 2]);
        }
      }
      k_pooled[d] = k_sum / kKvPageTokens;
      v_pooled[d] = v_sum / kKvPageTokens;
    }
  }

  void operator()(int64_t task, int) const {
    const int kv_head = static_cast<int>(task % p.kv.num_kv_heads);
    const int block = p.token_begin / kKvPageTokens + static_cast<int>(task / p.kv.num_kv_heads);
    const int begin = std::max(p.token_begin, block * kKvPageTokens);
    const int end = std::min(p.token_begin + p.num_tokens, (block + 1) * kKvPageTokens);
    Write(block, kv_head, begin, end);
    if (end == (block + 1) * kKvPageTokens && p.kv.k_pooled != nullptr) Pool(block, kv_head);
  }
};

}  // namespace

void AppendKv(const KvAppendParams& params, ThreadPool& pool) {
  if (params.num_tokens <= 0) return;
  const int first = params.token_begin / kKvPageTokens;
  const int last = (params.token_begin + params.num_tokens - 1) / kKvPageTokens;
  const Append append{params};
  pool.ParallelFor(int64_t{last - first + 1} * params.kv.num_kv_heads, std::ref(append));
}

}  // namespace videonsa
