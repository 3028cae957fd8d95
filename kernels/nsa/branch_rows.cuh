#pragma once

#include "kernels/attention/paged_rows.cuh"

/// Policies of the three branches (attention.md sections 3 and 4).
namespace videonsa::cuda {

/// Keys of the last `window` positions, the row's own included.
template <typename T>
struct WindowPolicy : PagedRows<T> {
  using Cta = RowsCta;

  int window = 0;

  template <int kRows>
  __device__ bool Begin(Cta& cta, char*, char*) const {
    if (!this->template BeginRows<kRows>(cta)) return false;
    cta.first_tile = max(0, this->FirstPosition(cta) - window + 1) / kTileKeys;
    cta.steps = this->LastPosition(cta) / kTileKeys - cta.first_tile + 1;
    return true;
  }
  __device__ KeyTile<T> Tile(const Cta& cta, int step) const {
    return this->PageTile(cta, cta.first_tile + step);
  }
  __device__ KeyRange Range(const Cta&, const KeyTile<T>& tile, int, int, int position) const {
    return {max(0, position - window + 1 - tile.first), min(kTileKeys, position - tile.first + 1)};
  }
};

/// Block means: whole earlier blocks (causal_nsa), or the own block and all later ones (quirk Q3).
///
/// Shapes: k_means, v_means [num_kv_heads, num_blocks rounded up to 64, head_dim]
///         lse2: causal_nsa [rows of the call, num_q_heads], released_nsa [64 slots, lse_stride]
template <typename T>
struct CompressedPolicy : PagedRows<T> {
  using Cta = RowsCta;

  const T* k_means = nullptr;
  const T* v_means = nullptr;
  int num_blocks = 0;
  int blocks_stride = 0;
  bool own_and_later = false;
  float* lse2 = nullptr;
  int64_t lse_stride = 0;
  float* top2 = nullptr;  ///< causal_nsa: [rows of the call, num_q_heads] or null

  const T* KeyBase() const { return k_means; }
  const T* ValueBase() const { return v_means; }

  template <int kRows>
  __device__ bool Begin(Cta& cta, char*, char*) const {
    if (!this->template BeginRows<kRows>(cta)) return false;
    int last;
    if (own_and_later) {
      cta.first_tile = this->FirstPosition(cta) / kTileKeys / kTileKeys;
      last = num_blocks;
    } else {
      cta.first_tile = 0;
      last = (this->LastPosition(cta) + 1) / kTileKeys;
    }
    cta.steps = (last + kTileKeys - 1) / kTileKeys - cta.first_tile;
    return true;
  }
  __device__ KeyTile<T> Tile(const Cta& cta, int step) const {
    KeyTile<T> tile;
    tile.first = (cta.first_tile + step) * kTileKeys;
    const int64_t at = (int64_t{cta.kv_head} * blocks_stride + tile.first) * this->head_dim;
    tile.k = k_means + at;
    tile.v = v_means + at;
    tile.row_stride = this->head_dim;
    tile.live = min(kTileKeys, num_blocks - tile.first);
    return tile;
  }
  __device__ KeyRange Range(const Cta&, const KeyTile<T>& tile, int, int, int position) const {
    if (own_and_later) {
      return {max(0, position / kTileKeys - tile.first), min(kTileKeys, num_blocks - tile.first)};
    }
    return {0, min(kTileKeys, (position + 1) / kTileKeys - tile.first)};
  }
  __device__ RowOutput OutputOf(const Cta& cta, int row) const {
    RowOutput to = PagedRows<T>::OutputOf(cta, row);
    const int64_t token = cta.token + row / cta.group;
    if (this->heads == HeadMap::kSlots) {
      to.lse2 = lse2 + this->Slot(cta, row) * lse_stride + token;
    } else {
      const int64_t at = token * this->num_q_heads + this->Head(cta, row);
      to.lse2 = lse2 + at;
      if (top2 != nullptr) to.top2 = top2 + at;
    }
    return to;
  }
};

/// Keys of the chosen blocks. A CTA walks over the union of its tokens' choices in ascending
/// order; a token takes part in the blocks it chose.
///
/// Shapes: blocks [rows of the call, num_kv_heads, count] int32, -1 = none
template <typename T>
struct SelectedPolicy : PagedRows<T> {
  using Cta = struct SelectedCta : RowsCta {
    const uint32_t* members = nullptr;  // by step: bit t = token t of the CTA
    const uint16_t* list = nullptr;     // by step: block
  };

  const int32_t* blocks = nullptr;
  int count = 0;

  /// Union entries of a CTA at most.
  __host__ __device__ int Capacity(int rows, int group) const {
    const int all = (this->row_end + kTileKeys - 1) / kTileKeys;
    const int chosen = PagedRows<T>::TileTokens(rows, group) * count;
    return all < chosen ? all : chosen;
  }
  /// Shared memory for CTAs of `rows` rows with at least `group` rows a token.
  PolicyShared Shared(int rows, int group) const {
    const int all = (this->row_end + kTileKeys - 1) / kTileKeys;
    return {all * 4, 16 + Capacity(rows, group) * 6};
  }

  template <int kRows>
  __device__ bool Begin(Cta& cta, char* overlay, char* extra) const {
    if (!this->template BeginRows<kRows>(cta)) return false;
    auto* marks = reinterpret_cast<uint32_t*>(overlay);
    const int all = this->LastPosition(cta) / kTileKeys + 1;
    for (int i = threadIdx.x; i < all; i += kTileThreads) marks[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < cta.num_tokens * count; i += kTileThreads) {
      const int token = i / count;
      if (!this->Alive(cta.token + token)) continue;
      const int64_t row = cta.token + token;
      const int block = blocks[(row * this->num_kv_heads + cta.kv_head) * count + i % count];
      if (block >= 0) atomicOr(&marks[block], 1u << token);
    }
    __syncthreads();
    auto* steps = reinterpret_cast<int*>(extra);
    auto* members = reinterpret_cast<uint32_t*>(extra + 16);
    auto* list = reinterpret_cast<uint16_t*>(members + Capacity(kRows, cta.group));
    if (threadIdx.x < 32) {
      int used = 0;
      for (int first = 0; first < all; first += 32) {
        const int block = first + static_cast<int>(threadIdx.x);
        const uint32_t mark = block < all ? marks[block] : 0;
        const unsigned marked = __ballot_sync(kFullWarp, mark != 0);
        if (mark != 0) {
          const int at = used + __popc(marked & ((1u << threadIdx.x) - 1));
          members[at] = mark;
          list[at] = static_cast<uint16_t>(block);
        }
        used += __popc(marked);
      }
      if (threadIdx.x == 0) *steps = used;
    }
    __syncthreads();
    cta.steps = *steps;
    cta.members = members;
    cta.list = list;
    return true;
  }
  __device__ KeyTile<T> Tile(const Cta& cta, int step) const {
    return this->PageTile(cta, cta.list[step]);
  }
  __device__ KeyRange Range(const Cta& cta, const KeyTile<T>& tile, int step, int row,
                            int position) const {
    if ((cta.members[step] >> (row / cta.group) & 1) == 0) return {};
    return {0, min(kTileKeys, position - tile.first + 1)};
  }
};

}  // namespace videonsa::cuda
