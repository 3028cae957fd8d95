#include "kernels/cpu/value_sums.h"

#include <algorithm>
#include <functional>

#include "kernels/cpu/tile_rows.h"

namespace videonsa {
namespace {

constexpr int kMaxHeadDim = 256;

// Adds the value of one token of a tile to sum[head_dim].
void AddToken(const PagedKv& kv, const KvTile& tile, int token, double* sum) {
  const int head_dim = kv.head_dim;
  if (kv.dtype == DType::kF32) {
    const float* v = static_cast<const float*>(tile.v) + int64_t{token} * head_dim;
    for (int d = 0; d < head_dim; ++d) sum[d] += v[d];
  } else {
    const uint16_t* v =
        static_cast<const uint16_t*>(tile.v) + int64_t{token / 2} * head_dim * 2 + token % 2;
    for (int d = 0; d < head_dim; ++d) sum[d] += FromBf16(v[2 * d]);
  }
}

struct SumBlocks {
  const PagedKv& kv;
  const ValueSums& sums;

  void operator()(int64_t task, int) const {
    const int kv_head = static_cast<int>(task % kv.num_kv_heads);
    const int block = static_cast<int>(task / kv.num_kv_heads);
    const KvTile tile = TileOf(kv, kv.page_ids, block, kv_head);
    const int64_t at = (int64_t{block + 1} * kv.num_kv_heads + kv_head) * kv.head_dim;
    std::fill(sums.all + at, sums.all + at + kv.head_dim, 0.0);
    std::fill(sums.kept + at, sums.kept + at + kv.head_dim, 0.0);
    const int begin = block * kKvPageTokens;
    for (int i = begin; i < std::min(begin + kKvPageTokens, sums.num_rows); ++i) {
      AddToken(kv, tile, i - begin, sums.all + at);
      if (sums.keep[i]) AddToken(kv, tile, i - begin, sums.kept + at);
    }
  }
};

}  // namespace

void SumValues(const PagedKv& kv, const ValueSums& sums, ThreadPool& pool) {
  const int num_blocks = (sums.num_rows + kKvPageTokens - 1) / kKvPageTokens;
  const int64_t width = int64_t{kv.num_kv_heads} * kv.head_dim;
  std::fill(sums.all, sums.all + width, 0.0);
  std::fill(sums.kept, sums.kept + width, 0.0);
  const SumBlocks body{kv, sums};
  pool.ParallelFor(int64_t{num_blocks} * kv.num_kv_heads, std::ref(body));
  for (int64_t i = 0; i < num_blocks * width; ++i) {
    sums.all[i + width] += sums.all[i];
    sums.kept[i + width] += sums.kept[i];
  }
}

void AddKeptRange(const PagedKv& kv, const ValueSums& sums, int kv_head, int begin, int end,
                  double* sum) {
  const auto border = [&](int block) {
    return sums.kept + (int64_t{block} * kv.num_kv_heads + kv_head) * kv.head_dim;
  };
  const auto add_tokens = [&](int from, int to) {
    for (int i = from; i < to; ++i) {
      if (!sums.keep[i]) continue;
      AddToken(kv, TileOf(kv, kv.page_ids, i / kKvPageTokens, kv_head), i % kKvPageTokens, sum);
    }
  };
  const int first = (begin + kKvPageTokens - 1) / kKvPageTokens;  // whole blocks [first, last)
  const int last = end / kKvPageTokens;
  if (first >= last) return add_tokens(begin, end);
  add_tokens(begin, first * kKvPageTokens);
  for (int d = 0; d < kv.head_dim; ++d) sum[d] += border(last)[d] - border(first)[d];
  add_tokens(last * kKvPageTokens, end);
}

void AddRunningMeans(const PagedKv& kv, const ValueSums& sums, int kv_head,
                     const int32_t* positions, int count, int heads_per_kv_head, float* out,
                     int64_t out_row_stride) {
  double sum[kMaxHeadDim];
  int next = -1;  // first position not yet in `sum`
  for (int i = 0; i < count; ++i) {
    const int block = positions[i] / kKvPageTokens;
    if (next < block * kKvPageTokens) {
      const double* border = sums.all + (int64_t{block} * kv.num_kv_heads + kv_head) * kv.head_dim;
      std::copy(border, border + kv.head_dim, sum);
      next = block * kKvPageTokens;
    }
    const KvTile tile = TileOf(kv, kv.page_ids, block, kv_head);
    for (; next <= positions[i]; ++next) AddToken(kv, tile, next % kKvPageTokens, sum);
    const double inverse = 1.0 / (positions[i] + 1);
    for (int h = 0; h < heads_per_kv_head; ++h) {
      float* to = out + positions[i] * out_row_stride +
                  (int64_t{kv_head} * heads_per_kv_head + h) * kv.head_dim;
      for (int d = 0; d < kv.head_dim; ++d) to[d] += static_cast<float>(sum[d] * inverse);
    }
  }
}

}  // namespace videonsa
