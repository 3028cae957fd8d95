#include "kernels/cpu/pooled_tiles.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "kernels/common/bf16.h"

namespace videonsa {
namespace {

struct Gather {
  const PagedKv& kv;
  const PooledTiles& tiles;

  void operator()(int64_t task, int) const {
    const int kv_head = static_cast<int>(task / tiles.num_tiles);
    const int tile = static_cast<int>(task % tiles.num_tiles);
    float* k = tiles.K(kv_head, tile);
    float* v = tiles.V(kv_head, tile);
    std::fill(k, k + tiles.tile_floats(), 0.0f);
    std::fill(v, v + tiles.tile_floats(), 0.0f);
    const int count = std::min(kKvPageTokens, tiles.num_blocks - tile * kKvPageTokens);
    for (int i = 0; i < count; ++i) {
      const int64_t page = kv.page_ids[tile * kKvPageTokens + i];
      const int64_t row = (page * kv.num_kv_heads + kv_head) * kv.head_dim;
      for (int d = 0; d < kv.head_dim; ++d) k[d * kKvPageTokens + i] = kv.k_pooled[row + d];
      std::memcpy(v + int64_t{i} * kv.head_dim, kv.v_pooled + row, sizeof(float) * kv.head_dim);
    }
  }
};

struct Pool {
  const PagedKv& kv;
  const uint8_t* keep;
  int num_rows;
  const PooledTiles& tiles;

  void operator()(int64_t task, int) const {
    const int kv_head = static_cast<int>(task / tiles.num_tiles);
    const int tile = static_cast<int>(task % tiles.num_tiles);
    float* k = tiles.K(kv_head, tile);
    float* v = tiles.V(kv_head, tile);
    std::fill(k, k + tiles.tile_floats(), 0.0f);
    std::fill(v, v + tiles.tile_floats(), 0.0f);
    const int count = std::min(kKvPageTokens, tiles.num_blocks - tile * kKvPageTokens);
    for (int i = 0; i < count; ++i) {
      const int block = tile * kKvPageTokens + i;
      const int tokens = std::min(kKvPageTokens, num_rows - block * kKvPageTokens);
      const KvTile source = TileOf(kv, kv.page_ids, block, kv_head);
      for (int d = 0; d < kv.head_dim; ++d) {
        float k_sum = 0, v_sum = 0;
        for (int t = 0; t < tokens; ++t) {
          if (!keep[block * kKvPageTokens + t]) continue;
          k_sum += ReadTileK(kv, source, t, d);
          v_sum += ReadTileV(kv, source, t, d);
        }
        k[d * kKvPageTokens + i] = k_sum / static_cast<float>(tokens);
        v[int64_t{i} * kv.head_dim + d] = v_sum / static_cast<float>(tokens);
      }
    }
  }
};

}  // namespace

void GatherPooledTiles(const PagedKv& kv, const PooledTiles& tiles, ThreadPool& pool) {
  const Gather gather{kv, tiles};
  pool.ParallelFor(int64_t{kv.num_kv_heads} * tiles.num_tiles, std::ref(gather));
}

void PoolKeptTiles(const PagedKv& kv, const uint8_t* keep, int num_rows, const PooledTiles& tiles,
                   ThreadPool& pool) {
  const Pool body{kv, keep, num_rows, tiles};
  pool.ParallelFor(int64_t{kv.num_kv_heads} * tiles.num_tiles, std::ref(body));
}

}  // namespace videonsa
