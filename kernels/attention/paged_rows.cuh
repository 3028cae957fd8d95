#pragma once

#include "kernels/attention/paged_kv.h"
#include "kernels/common/attention_tile.cuh"
#include "kernels/common/cuda_launch.h"

/// Policies of attention_tile.cuh over the rows of one sequence and its pages.
namespace videonsa::cuda {

/// Tokens of one CTA are marked in a 32-bit word.
inline constexpr int kMaxTileTokens = 32;

struct DeviceRows {
  void* data = nullptr;
  int64_t stride = 0;
  bool is_bf16 = false;

  DeviceRows() = default;
  explicit DeviceRows(const CudaConstRows& rows)
      : data(const_cast<void*>(rows.data)),
        stride(rows.row_stride),
        is_bf16(rows.dtype == DType::kBF16) {}
};

/// Rows of one CTA: whole tokens, all query heads that share a KV head.
struct RowsCta {
  int kv_head = 0;
  int group = 0;
  int token = 0;  ///< first token, counted from the first row of the call
  int num_tokens = 0;
  int steps = 0;
  int first_tile = 0;  ///< of step 0, where steps are consecutive tiles
};

/// Query heads by KV head: groups of neighbours, or the 56 data slots of released_nsa (quirk Q12).
enum class HeadMap : int { kGroups, kSlots };

inline constexpr int kSlotsPerKvHead = 16;
inline constexpr int kDataSlots = 56;
inline constexpr int kSlotHeads = 28;
/// Whether a slot's head has been met before, if KV heads 0 and 3 are passed first, then 1, then 2.
__host__ __device__ constexpr bool IsSecondCopy(int slot) { return slot >= 20 && slot < 48; }

/// What all policies over pages share.
///
/// Rows marked in `skip`, or not marked in `only`, are dead. Rows marked 0 in `zero_unless` have a
/// zero query and a gate of one half (quirks Q2, Q6). gates null: gate 1.
template <typename T>
struct PagedRows {
  using Element = T;
  using Cta = RowsCta;

  const T* k_pages = nullptr;
  const T* v_pages = nullptr;
  const int32_t* page_ids = nullptr;
  int num_kv_heads = 0;
  int head_dim = 0;
  DeviceRows q;
  DeviceRows out;
  const uint8_t* skip = nullptr;
  const uint8_t* only = nullptr;
  const uint8_t* zero_unless = nullptr;
  const uint8_t* keep = nullptr;  ///< [row_end] keys marked 0 are zero rows; null: none
  int row_begin = 0;
  int row_end = 0;
  HeadMap heads = HeadMap::kGroups;
  int num_q_heads = 0;
  int kv_first = 0;  ///< KV head of blockIdx.y = 0; the next ones in steps of kv_step
  int kv_step = 1;
  const float* gates = nullptr;
  int64_t gates_stride = 0;
  int branch = 0;
  float factor = 1;
  const float* add = nullptr;  ///< [rows of the call, width of out] addend; null: 0
  int64_t add_stride = 0;
  /// Slots, where given: what a head's first copy adds in vision rows instead, [rows, num_kv_heads,
  /// head_dim] for the head's own KV head; and where its second copy leaves the row.
  const float* first_add = nullptr;
  DeviceRows last_out;

  /// Where the tiles' keys and values lie.
  const T* KeyBase() const { return k_pages; }
  const T* ValueBase() const { return v_pages; }

  __host__ __device__ int Group(int kv_head) const {
    if (heads == HeadMap::kGroups) return num_q_heads / num_kv_heads;
    const int left = kDataSlots - kv_head * kSlotsPerKvHead;
    return left < kSlotsPerKvHead ? left : kSlotsPerKvHead;
  }
  __host__ __device__ static int TileTokens(int rows, int group) {
    return rows / group < kMaxTileTokens ? rows / group : kMaxTileTokens;
  }
  /// Grid over tiles of rows and `num_kv` KV heads.
  dim3 Grid(int rows, int num_kv) const {
    unsigned tiles = 0;
    for (int i = 0; i < num_kv; ++i) {
      const int tokens = TileTokens(rows, Group(kv_first + i * kv_step));
      tiles = std::max(tiles, static_cast<unsigned>((row_end - row_begin + tokens - 1) / tokens));
    }
    return dim3(tiles, static_cast<unsigned>(num_kv));
  }

  __device__ bool Alive(int64_t token) const {
    return (skip == nullptr || !skip[token]) && (only == nullptr || only[token]);
  }

  /// Late tiles have the longest way and start first.
  template <int kRows>
  __device__ bool BeginRows(Cta& cta) const {
    cta.kv_head = kv_first + static_cast<int>(blockIdx.y) * kv_step;
    cta.group = Group(cta.kv_head);
    const int tokens = TileTokens(kRows, cta.group);
    cta.token = (gridDim.x - 1 - blockIdx.x) * tokens;
    cta.num_tokens = min(tokens, row_end - row_begin - cta.token);
    if (cta.num_tokens <= 0) return false;
    if (skip == nullptr && only == nullptr) return true;
    bool alive = false;
    for (int i = threadIdx.x; i < cta.num_tokens; i += blockDim.x) alive |= Alive(cta.token + i);
    return __syncthreads_or(alive) != 0;
  }
  __device__ int FirstPosition(const Cta& cta) const { return row_begin + cta.token; }
  __device__ int LastPosition(const Cta& cta) const {
    return row_begin + cta.token + cta.num_tokens - 1;
  }

  __device__ int steps(const Cta& cta) const { return cta.steps; }
  __device__ int Position(const Cta& cta, int row) const {
    const int token = row / cta.group;
    if (token >= cta.num_tokens) return -1;
    if (!Alive(cta.token + token)) return -1;
    return row_begin + cta.token + token;
  }
  __device__ int Slot(const Cta& cta, int row) const {
    return cta.kv_head * kSlotsPerKvHead + row % cta.group;
  }
  __device__ int Head(const Cta& cta, int row) const {
    return heads == HeadMap::kSlots ? Slot(cta, row) % kSlotHeads
                                    : cta.kv_head * cta.group + row % cta.group;
  }
  __device__ Query QueryOf(const Cta& cta, int row) const {
    Query query;
    if (Position(cta, row) < 0) return query;
    const int token = cta.token + row / cta.group;
    if (zero_unless != nullptr && !zero_unless[token]) return query;
    query.data = q.data;
    query.is_bf16 = q.is_bf16;
    query.offset = token * q.stride + int64_t{Head(cta, row)} * head_dim;
    return query;
  }
  __device__ KeyTile<T> PageTile(const Cta& cta, int block) const {
    return TileAt(page_ids[block], block, cta.kv_head);
  }
  __device__ KeyTile<T> TileAt(int64_t page, int block, int kv_head) const {
    KeyTile<T> tile;
    const int64_t at = (page * num_kv_heads + kv_head) * (int64_t{kTileKeys} * head_dim);
    tile.k = k_pages + at;
    tile.v = v_pages + at;
    tile.row_stride = head_dim;
    tile.first = block * kTileKeys;
    tile.live = min(kTileKeys, row_end - tile.first);
    tile.keep = keep == nullptr ? nullptr : keep + tile.first;
    return tile;
  }
  __device__ RowOutput OutputOf(const Cta& cta, int row) const {
    RowOutput to;
    const int token = cta.token + row / cta.group;
    const int head = Head(cta, row);
    to.data = out.data;
    to.is_bf16 = out.is_bf16;
    to.offset = token * out.stride + int64_t{head} * head_dim;
    if (add != nullptr) to.add = add + token * add_stride + int64_t{head} * head_dim;
    if (heads == HeadMap::kSlots) {
      const bool second = IsSecondCopy(Slot(cta, row));
      if (first_add != nullptr && !second && zero_unless[token]) {
        const int own = head * num_kv_heads / kSlotHeads;
        to.add = first_add + (int64_t{token} * num_kv_heads + own) * head_dim;
      }
      if (last_out.data != nullptr && second) {
        to.data = last_out.data;
        to.is_bf16 = last_out.is_bf16;
        to.offset = token * last_out.stride + int64_t{head} * head_dim;
      }
    }
    to.factor = factor;
    if (gates != nullptr) {
      const bool live = zero_unless == nullptr || zero_unless[token];
      const float g = live ? gates[token * gates_stride + head * 3 + branch] : 0.0f;
      to.factor *= 1.0f / (1.0f + expf(-g / 0.3f));
    }
    return to;
  }
};

/// All keys up to the row.
template <typename T>
struct DensePolicy : PagedRows<T> {
  using Cta = RowsCta;

  template <int kRows>
  __device__ bool Begin(Cta& cta, char*, char*) const {
    if (!this->template BeginRows<kRows>(cta)) return false;
    cta.steps = this->LastPosition(cta) / kTileKeys + 1;
    return true;
  }
  __device__ KeyTile<T> Tile(const Cta& cta, int step) const { return this->PageTile(cta, step); }
  __device__ KeyRange Range(const Cta&, const KeyTile<T>& tile, int, int, int position) const {
    return {0, min(kTileKeys, position - tile.first + 1)};
  }
};

/// The keys of one run of blockIdx.z, normalised results and the logs of their sums.
///
/// Shapes: partial [runs, rows of the call, num_q_heads, head_dim], lse2 [runs, rows, num_q_heads]
template <typename T>
struct DenseRunPolicy : DensePolicy<T> {
  using Cta = RowsCta;

  int run_tiles = 0;
  float* partial = nullptr;
  float* lse2 = nullptr;

  template <int kRows>
  __device__ bool Begin(Cta& cta, char*, char*) const {
    if (!this->template BeginRows<kRows>(cta)) return false;
    cta.first_tile = static_cast<int>(blockIdx.z) * run_tiles;
    cta.steps = min(run_tiles, this->LastPosition(cta) / kTileKeys + 1 - cta.first_tile);
    return cta.steps > 0;
  }
  __device__ KeyTile<T> Tile(const Cta& cta, int step) const {
    return this->PageTile(cta, cta.first_tile + step);
  }
  __device__ RowOutput OutputOf(const Cta& cta, int row) const {
    const int64_t rows = this->row_end - this->row_begin;
    const int64_t at = (blockIdx.z * rows + cta.token + row / cta.group) * this->num_q_heads +
                       this->Head(cta, row);
    RowOutput to;
    to.data = partial;
    to.offset = at * this->head_dim;
    to.lse2 = lse2 + at;
    return to;
  }
};

template <typename T>
void FillPages(const PagedKv& kv, PagedRows<T>& rows) {
  rows.k_pages = static_cast<const T*>(kv.k_pages);
  rows.v_pages = static_cast<const T*>(kv.v_pages);
  rows.page_ids = kv.page_ids;
  rows.num_kv_heads = kv.num_kv_heads;
  rows.head_dim = kv.head_dim;
}

inline bool ShapeFits(const PagedKv& kv, int num_q_heads) {
  return (kv.dtype == DType::kF32 || kv.dtype == DType::kBF16) && kv.num_kv_heads > 0 &&
         num_q_heads % kv.num_kv_heads == 0 && num_q_heads / kv.num_kv_heads <= 16;
}

/// Calls body(T{}) with the element type of the pages.
template <typename Body>
cudaError_t DispatchElement(DType dtype, const Body& body) {
  return dtype == DType::kF32 ? body(float{}) : body(__nv_bfloat16{});
}

}  // namespace videonsa::cuda
