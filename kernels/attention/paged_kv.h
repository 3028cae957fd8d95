#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/dtype.h"

namespace videonsa {

/// Tokens per KV page; one NSA block. Equals runtime/step's kPageTokens (asserted in runtime/ops).
inline constexpr int kKvPageTokens = 64;

/// KV pages of one layer as one sequence sees them. A page is one NSA block; the tokens of one KV
/// head are one dense tile, laid out so that one vector holds the same coordinate of neighbouring
/// keys. kernels/cpu/kv_append.h is the only writer, kernels/reference/kv_read.h reads single rows.
///
/// Shapes: F32:  k_pages [num_pages, num_kv_heads, head_dim, 64]        (a tile is K transposed)
///               v_pages [num_pages, num_kv_heads, 64, head_dim]
///         BF16: k_pages [num_pages, num_kv_heads, head_dim / 2, 64, 2] (pairs of coordinates)
///               v_pages [num_pages, num_kv_heads, 32, head_dim, 2]     (pairs of tokens)
///         k_pooled, v_pooled [num_pages, num_kv_heads, head_dim]       fp32; block means, valid
///         once the page is full (released_nsa does not read them)
///         page_ids [num_blocks]; block b of the sequence lies in page page_ids[b]
/// Requires: head_dim % 16 == 0, head_dim <= 256; 64-byte aligned tiles are fastest.
/// Keys are after rotation, values raw. Rows past the sequence's length hold garbage (NaN allowed).
struct PagedKv {
  DType dtype = DType::kF32;
  void* k_pages = nullptr;
  void* v_pages = nullptr;
  float* k_pooled = nullptr;
  float* v_pooled = nullptr;
  const int32_t* page_ids = nullptr;
  int num_kv_heads = 0;
  int head_dim = 0;
};

/// Elements of the K (or V) tile of one page and KV head; pages are [num_kv_heads] such tiles.
constexpr int64_t KvTileElements(int head_dim) { return int64_t{kKvPageTokens} * head_dim; }

/// Bytes of one page of one layer: K, V and pooled K, V.
constexpr int64_t KvPageBytes(DType dtype, int num_kv_heads, int head_dim) {
  return num_kv_heads * (2 * KvTileElements(head_dim) * static_cast<int64_t>(SizeOf(dtype)) +
                         2 * head_dim * static_cast<int64_t>(sizeof(float)));
}

}  // namespace videonsa
