#pragma once

#include "kernels/nsa/nsa_stages.cuh"

/// Selected attention with the rows gathered by block: the part that multiplies.
namespace videonsa::cuda {

inline constexpr int kGatherWarps = kTileThreads / 32;
inline constexpr int kSliceRows = 32;     ///< rows a warp multiplies at a time
inline constexpr int kItemRows = 1024;    ///< rows one CTA passes by its block
inline constexpr int kItemEntries = 512;  ///< and entries that they belong to

/// What one CTA does: `count` entries from `first` on chose `block` of the y-th KV head.
struct alignas(16) Item {
  int block;
  int page;
  int first;
  int count;
  int y;
};

/// Rows [begin, end) of the call. KV head y means the y-th of the launch. Entries are sorted by
/// block, and so are their partial results: those who multiply write them one after the other.
struct GatherTask {
  SelectedPolicy<__nv_bfloat16> rows;
  int begin = 0;
  int end = 0;
  int num_kv = 0;
  int num_blocks = 0;
  int max_items = 0;
  int group_stride = 0;         // partial rows of one entry
  int query_stride = 0;         // in units of 8 elements
  int* counts = nullptr;        // [num_kv, num_blocks], number of items, items taken; zero at first
  int* starts = nullptr;        // [num_kv, num_blocks]
  int* places = nullptr;        // [num_kv, rows * count] at first among the entries of its block
  int* entries = nullptr;       // [num_kv, rows * count] row of the chunk
  Item* items = nullptr;        // [max_items]
  uint16_t* partial = nullptr;  // [num_kv, rows * count, group_stride, head_dim] bf16
  // log2 of the largest weight, and the sum of weights relative to it, for every partial row.
  float2* sums = nullptr;

  __device__ int KvHead(int y) const { return rows.kv_first + y * rows.kv_step; }
  __device__ int* NumItems() const { return counts + num_kv * num_blocks; }
  __device__ int PerKv() const { return (end - begin) * rows.count; }
  // Block of entry i (row-major in the chunk), -1 if there is none.
  __device__ int BlockOf(int y, int i) const {
    const int64_t row = begin + i / rows.count;
    if (!rows.Alive(row)) return -1;
    return rows.blocks[(row * rows.num_kv_heads + KvHead(y)) * rows.count + i % rows.count];
  }
  __device__ KeyTile<__nv_bfloat16> TileOf(const Item& item, int kv_head) const {
    return rows.TileAt(item.page, item.block, kv_head);
  }
};

/// row / group of rows of an item by a product.
__device__ inline int InverseOf(int group) { return 65535 / group + 1; }
__device__ inline int Quotient(int row, int inverse_group) { return row * inverse_group >> 16; }

template <int kDim>
struct GatherLayout {
  static constexpr int kPieces = kDim / 8;
  static constexpr int kStride = (kPieces | 1) * 8;
  static constexpr int kTileBytes = kTileKeys * kStride * 2;
  static constexpr int kSliceBytes = kSliceRows * kStride * 2;
  static constexpr int kBytes = 2 * kTileBytes + kGatherWarps * 2 * kSliceBytes;
};

// A warp passes slices of rows by the CTA's block; nothing is shared between warps but the block.
template <int kDim>
class GatherWarp {
  using Layout = GatherLayout<kDim>;
  static constexpr int kKeyTiles = kTileKeys / 8;
  static constexpr int kDimTiles = kDim / 8;

 public:
  __device__ GatherWarp(const GatherTask& task, const Item& item, char* shared)
      : t_(task),
        item_(item),
        kv_head_(task.KvHead(item.y)),
        base_(int64_t{item.y} * task.PerKv()),
        group_(task.rows.Group(kv_head_)),
        inverse_group_(InverseOf(group_)),
        k_(reinterpret_cast<uint16_t*>(shared)),
        v_(k_ + Layout::kTileBytes / 2),
        slices_(shared + 2 * Layout::kTileBytes +
                static_cast<int>(threadIdx.x / 32) * 2 * Layout::kSliceBytes),
        lane_(threadIdx.x % 32) {}

  __device__ void Run(float log2_scale) {
    const int rows = item_.count * group_;
    const int first = static_cast<int>(threadIdx.x / 32) * kSliceRows;
    LoadBlock();
    RowPlace now = Place(first, rows);
    LoadSlice(now, 0);
    CommitCopies();
    int stage = 0;
    for (int row = first; row < rows || row == first; row += kGatherWarps * kSliceRows) {
      const int next_row = row + kGatherWarps * kSliceRows;
      const RowPlace next = Place(next_row, rows);
      if (next_row < rows) LoadSlice(next, stage ^ 1);
      CommitCopies();
      WaitCopies<1>();
      if (row == first) __syncthreads();  // the block is everybody's
      __syncwarp();
      if (row < rows) Slice(now, stage, log2_scale);
      now = next;
      stage ^= 1;
    }
    WaitCopies<0>();
  }

 private:
  // Lane l: row l of the warp's slice.
  struct RowPlace {
    int to = -1;      // partial row, -1: no row
    int from = -1;    // the query in units of 8 elements, -1: a zero query
    int visible = 0;  // keys of the block it sees
  };

  __device__ RowPlace Place(int first, int rows) const {
    RowPlace place;
    const int row = first + lane_;
    if (row >= rows) return place;
    const int token = Quotient(row, inverse_group_);
    const int g = row - token * group_;
    const int call_row = t_.begin + t_.entries[base_ + item_.first + token];
    place.to = (item_.first + token) * t_.group_stride + g;
    place.visible = min(kTileKeys, t_.rows.row_begin + call_row - item_.block * kTileKeys + 1);
    if (t_.rows.zero_unless != nullptr && !t_.rows.zero_unless[call_row]) return place;
    const int head = t_.rows.heads == HeadMap::kSlots
                         ? (kv_head_ * kSlotsPerKvHead + g) % kSlotHeads
                         : kv_head_ * group_ + g;
    place.from = static_cast<int>((call_row * t_.rows.q.stride + int64_t{head} * kDim) / 8);
    return place;
  }

  __device__ uint16_t* SliceRows(int stage) const {
    return reinterpret_cast<uint16_t*>(slices_ + stage * Layout::kSliceBytes);
  }

  __device__ void LoadBlock() const {
    const KeyTile<__nv_bfloat16> tile = t_.TileOf(item_, kv_head_);
    for (int i = threadIdx.x; i < kTileKeys * Layout::kPieces; i += kTileThreads) {
      const int key = i / Layout::kPieces, piece = i % Layout::kPieces;
      const bool live = key < tile.live && (tile.keep == nullptr || tile.keep[key] != 0);
      const int64_t from = live ? key * tile.row_stride + piece * 8 : 0;
      CopyAsync16(k_ + key * Layout::kStride + piece * 8, tile.k + from, live);
      CopyAsync16(v_ + key * Layout::kStride + piece * 8, tile.v + from, live);
    }
  }

  __device__ void LoadSlice(const RowPlace& place, int stage) const {
    const bool is_bf16 = t_.rows.q.is_bf16;
    const char* data = static_cast<const char*>(t_.rows.q.data);
#pragma unroll
    for (int i = 0; i < Layout::kPieces; ++i) {
      const int at = i * 32 + lane_;
      const int row = at / Layout::kPieces, piece = at % Layout::kPieces;
      const int from = __shfl_sync(kFullWarp, place.from, row);
      uint16_t* to = SliceRows(stage) + row * Layout::kStride + piece * 8;
      if (is_bf16) {
        CopyAsync16(to, data + (from < 0 ? 0 : (int64_t{from} + piece) * 16), from >= 0);
      } else {
        *reinterpret_cast<uint4*>(to) =
            LoadEightBf16(from < 0 ? nullptr : data, false, (int64_t{from} + piece) * 8);
      }
    }
  }

  __device__ void Slice(const RowPlace& place, int stage, float log2_scale) const {
    uint16_t* q = SliceRows(stage);
    float s[2][kKeyTiles][4] = {};
    Score(q, s);
    uint32_t p[2][kKeyTiles / 2][4];
    Softmax(place, log2_scale, s, p);
    float out[2][kDimTiles][4] = {};
    AddValues(p, out);
    __syncwarp();  // the queries have been read; their room takes the results
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint16_t* row = q + (m * 16 + half * 8 + lane_ / 4) * Layout::kStride + (lane_ & 3) * 2;
#pragma unroll
        for (int n = 0; n < kDimTiles; ++n) {
          *reinterpret_cast<uint32_t*>(row + n * 8) =
              PackBf16(out[m][n][half * 2], out[m][n][half * 2 + 1]);
        }
      }
    }
    __syncwarp();
    const int64_t base = base_ * t_.group_stride;
#pragma unroll
    for (int i = 0; i < Layout::kPieces; ++i) {
      const int at = i * 32 + lane_;
      const int row = at / Layout::kPieces, piece = at % Layout::kPieces;
      const int to = __shfl_sync(kFullWarp, place.to, row);
      if (to < 0) continue;
      *reinterpret_cast<uint4*>(t_.partial + (base + to) * kDim + piece * 8) =
          *reinterpret_cast<const uint4*>(q + row * Layout::kStride + piece * 8);
    }
    __syncwarp();
  }

  __device__ void Score(const uint16_t* q, float (&s)[2][kKeyTiles][4]) const {
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        LoadMatrix4(a[m],
                    q + (m * 16 + (lane_ & 15)) * Layout::kStride + d * 16 + (lane_ >> 4) * 8);
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t b[4];
        const int key = n * 8 + (lane_ & 7) + ((lane_ >> 4) << 3);
        LoadMatrix4(b, k_ + key * Layout::kStride + d * 16 + ((lane_ >> 3) & 1) * 8);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          MultiplyAdd(s[m][n], a[m], b[0], b[1]);
          MultiplyAdd(s[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // Weights relative to the block's maximum; it and their sum go into memory.
  __device__ void Softmax(const RowPlace& place, float log2_scale, float (&s)[2][kKeyTiles][4],
                          uint32_t (&p)[2][kKeyTiles / 2][4]) const {
    const int64_t base = base_ * t_.group_stride;
    const bool whole = __all_sync(kFullWarp, place.visible >= kTileKeys);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = m * 16 + half * 8 + lane_ / 4;
        const int visible = __shfl_sync(kFullWarp, place.visible, row);
        const int to = __shfl_sync(kFullWarp, place.to, row);
        if (!whole) {
#pragma unroll
          for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              float& x = s[m][n][half * 2 + i];
              x = n * 8 + (lane_ & 3) * 2 + i < visible ? x : kMinusInf;
            }
          }
        }
        const float top = RowTop(s[m], half, kMinusInf);
        const float highest = top == kMinusInf ? 0.0f : top * log2_scale;
        float sum = RowWeights(s[m], half, log2_scale, highest);
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
          p[m][n / 2][(n & 1) * 2 + half] = PackBf16(s[m][n][half * 2], s[m][n][half * 2 + 1]);
        }
        sum += __shfl_xor_sync(kFullWarp, sum, 1);
        sum += __shfl_xor_sync(kFullWarp, sum, 2);
        if (to >= 0 && (lane_ & 3) == 0) t_.sums[base + to] = make_float2(highest, sum);
      }
    }
  }

  __device__ void AddValues(const uint32_t (&p)[2][kKeyTiles / 2][4],
                            float (&out)[2][kDimTiles][4]) const {
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kDimTiles; n += 2) {
        uint32_t b[4];
        LoadMatrix4Transposed(
            b, v_ + (k * 16 + (lane_ & 15)) * Layout::kStride + n * 8 + (lane_ >> 4) * 8);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          MultiplyAdd(out[m][n], p[m][k], b[0], b[1]);
          MultiplyAdd(out[m][n + 1], p[m][k], b[2], b[3]);
        }
      }
    }
  }

  const GatherTask& t_;
  const Item item_;
  const int kv_head_;
  const int64_t base_;  // of the KV head's entries
  const int group_;
  const int inverse_group_;
  uint16_t* const k_;
  uint16_t* const v_;
  char* const slices_;
  const int lane_;
};

template <int kDim>
__global__ void __launch_bounds__(kTileThreads, 2)
    GatherKernel(const __grid_constant__ GatherTask task, float log2_scale) {
  extern __shared__ __align__(16) char shared[];
  if (static_cast<int>(blockIdx.x) >= *task.NumItems()) return;
  const Item item = task.items[blockIdx.x];
  GatherWarp<kDim>(task, item, shared).Run(log2_scale);
}

}  // namespace videonsa::cuda
