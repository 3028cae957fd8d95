#pragma once

#include "kernels/common/thread_pool.h"
#include "kernels/cpu/nsa_span.h"

namespace videonsa {

/// Lays out the pooled rows of the first `num_blocks` pages as tiles (causal_nsa).
/// Requires: those pages are full; tiles.num_blocks and num_tiles are set.
void GatherPooledTiles(const PagedKv& kv, const PooledTiles& tiles, ThreadPool& pool);

/// Pools positions [0, num_rows) with rows marked 0 in `keep` as zeros, every block divided by its
/// true length (released_nsa, quirks Q2 and Q8), and lays the means out as tiles.
///
/// Numerics: each block is summed token by token in one order, so equal keys give equal bits.
void PoolKeptTiles(const PagedKv& kv, const uint8_t* keep, int num_rows, const PooledTiles& tiles,
                   ThreadPool& pool);

}  // namespace videonsa
