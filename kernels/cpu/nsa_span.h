#pragma once

#include <cstdint>

#include "kernels/cpu/tile_rows.h"
#include "kernels/nsa/nsa_params.h"

namespace videonsa {

/// Neighbouring tokens of one sequence and the rows that share one KV head: the unit of work of the
/// NSA kernels. Token t owns rows [t * group, (t + 1) * group).
struct NsaSpan {
  int num_tokens = 0;
  int group = 0;  ///< rows (query heads or slots) per token
  int head_dim = 0;
  int kv_head = 0;
  TileRow* rows = nullptr;       ///< [num_tokens * group]; states belong to the branch at work
  TileRow* gathered = nullptr;   ///< room for as many rows
  int32_t* positions = nullptr;  ///< [num_tokens] ascending

  int num_rows() const { return num_tokens * group; }
};

/// Block means of a sequence in tiles of 64 blocks, ready for the tile kernels.
///
/// Shapes: k [num_kv_heads, num_tiles, head_dim, 64], v [num_kv_heads, num_tiles * 64, head_dim];
///         blocks past num_blocks are zeros
struct PooledTiles {
  float* k = nullptr;
  float* v = nullptr;
  int num_blocks = 0;
  int num_tiles = 0;
  int head_dim = 0;

  static int TilesOf(int num_blocks) { return (num_blocks + kKvPageTokens - 1) / kKvPageTokens; }
  int64_t tile_floats() const { return int64_t{head_dim} * kKvPageTokens; }
  float* K(int kv_head, int tile) const {
    return k + (int64_t{kv_head} * num_tiles + tile) * tile_floats();
  }
  float* V(int kv_head, int tile) const {
    return v + (int64_t{kv_head} * num_tiles + tile) * tile_floats();
  }
};

}  // namespace videonsa
