#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"

namespace videonsa {

/// Tokens per KV page; one NSA block. Equals runtime/step's kPageTokens (asserted in runtime/ops).
inline constexpr int kKvPageTokens = 64;

/// KV pages of one layer as one sequence sees them. A page is one NSA block; its rows of one KV
/// head are contiguous, so a selected block is one dense tile.
///
/// Shapes: k_pages, v_pages   [num_pages, num_kv_heads, 64, head_dim]  `dtype` (F32 or BF16)
///         k_pooled, v_pooled [num_pages, num_kv_heads, head_dim]      fp32; block means, valid
///         once
///                            the page is full (see the semantics for a half-full last page)
///         page_ids           [num_blocks]; block b of the sequence lies in page page_ids[b]
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

}  // namespace videonsa
