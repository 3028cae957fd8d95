#pragma once

#include "kernels/common/wgmma.cuh"
#include "kernels/nsa/gathered_rows.cuh"

/// Selected attention with the rows gathered by block, on the warpgroup products of Hopper. A CTA
/// is one warpgroup and goes from item to item; the next item's keys and values are on their way
/// meanwhile, and so are the next rows' queries, which go straight into registers.
namespace videonsa::cuda {

inline constexpr int kWideSliceRows = 64;
inline constexpr int kWideGatherCtas = 3;  ///< of a multiprocessor

template <int kDim>
struct WideGatherLayout {
  static constexpr int kBorder = 1024;
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  static constexpr int kEntriesAt = 4 * kTileBytes;  // behind two stages of keys and values
  static constexpr int kEntryBytes = kItemEntries * 4;
  static constexpr int kBytes = kBorder + kEntriesAt + 2 * kEntryBytes + 16;
};

/// Column of the k-th of a lane's four pairs of numbers in a partial row: partial rows keep the
/// order in which the lanes of a quad hold them, 16 bytes a lane.
constexpr int PartialColumn(int position, int k) {
  return position / 32 * 32 + k * 8 + position % 32 / 8 * 2;
}

/// What a zero query reads.
static __device__ const uint4 kZeroQuery[16] = {};

#ifdef VIDEONSA_WGMMA
template <int kDim, bool kBf16Queries>
class WideGather {
  using Layout = WideGatherLayout<kDim>;
  static constexpr int kKeyTiles = kTileKeys / 8;
  static constexpr int kDimTiles = kDim / 8;
  static constexpr uint32_t kColumnTile = kTileKeys * 128;  // bytes of 64 columns
  using Queries = uint32_t[kDim / 16][4];

 public:
  __device__ WideGather(const GatherTask& task, char* shared, float log2_scale)
      : t_(task),
        address_((SharedAddress(shared) + Layout::kBorder - 1) / Layout::kBorder * Layout::kBorder),
        shared_(shared + (address_ - SharedAddress(shared))),
        log2_scale_(log2_scale),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32) {}

  __device__ void Run() {
    int stage = 0, row = 0;
    Work now = WorkOf(ItemOf(blockIdx.x));
    if (now.rows == 0) return;
    LoadItem(now, stage);
    CommitCopies();
    Work next = WorkOf(ItemOf(blockIdx.x + gridDim.x));
    Item then = ItemOf(blockIdx.x + 2 * gridDim.x);
    Follow(stage ^ 1, next);
    WaitCopies<1>();
    FenceShared();
    __syncthreads();
    Place place = PlaceOf(now, stage, row);
    Queries q;
    LoadQueries(place, q);
    while (true) {
      float s[kKeyTiles][4];
      FenceProducts();
      Score(stage, q, s);
      CommitProducts();
      const bool last = row + kWideSliceRows >= now.rows;
      Place ahead = place;
      if (!last) {
        ahead = PlaceOf(now, stage, row + kWideSliceRows);
      } else if (next.rows > 0) {
        WaitCopies<0>();
        FenceShared();
        __syncthreads();
        ahead = PlaceOf(next, stage ^ 1, 0);
      }
      WaitProducts<0>();
      AfterWait(s);
      LoadQueries(ahead, q);
      Slice(now, stage, place, s);
      place = ahead;
      row += kWideSliceRows;
      if (!last) continue;
      if (next.rows == 0) break;
      __syncthreads();  // everybody has read the stage, and sees what was taken
      now = next;
      next = WorkOf(then);
      then = ItemOf(*Taken());
      stage ^= 1;
      row = 0;
      Follow(stage ^ 1, next);
    }
  }

 private:
  // An item and whose it is.
  struct Work {
    Item item;
    int kv_head = 0;
    int group = 1;
    int inverse_group = 0;
    int rows = 0;  // 0: no more work
  };
  // The thread's two rows of a slice.
  struct Place {
    int to[2];            // partial row, -1: no row
    int visible[2];       // keys of the block it sees
    const void* from[2];  // what the lane takes of the query, null: zeros
  };

  __device__ Item ItemOf(int index) const {
    Item item = {};
    if (index < *t_.NumItems()) item = t_.items[index];
    return item;
  }
  __device__ Work WorkOf(const Item& item) const {
    Work work;
    work.item = item;
    work.kv_head = t_.KvHead(item.y);
    work.group = t_.rows.Group(work.kv_head);
    work.inverse_group = InverseOf(work.group);
    work.rows = item.count * work.group;
    return work;
  }

  // Sends for the next work. Which item comes two after it is decided by who is there first.
  __device__ void Follow(int stage, const Work& next) const {
    if (next.rows > 0) LoadItem(next, stage);
    CommitCopies();
    __syncthreads();  // everybody has read what was taken before
    if (threadIdx.x == 0) {
      *Taken() = 3 * static_cast<int>(gridDim.x) + atomicAdd(t_.NumItems() + 1, 1);
    }
  }
  __device__ int* Taken() const {
    return reinterpret_cast<int*>(shared_ + Layout::kEntriesAt + 2 * Layout::kEntryBytes);
  }

  __device__ static int KeyOffset(int stage) { return stage * 2 * Layout::kTileBytes; }
  __device__ int* Entries(int stage) const {
    return reinterpret_cast<int*>(shared_ + Layout::kEntriesAt + stage * Layout::kEntryBytes);
  }

  // Keys, values and entries. Columns of keys are exchanged as those of queries in LoadQueries are.
  __device__ void LoadItem(const Work& work, int stage) const {
    const KeyTile<__nv_bfloat16> tile = t_.TileOf(work.item, work.kv_head);
    char* k = shared_ + KeyOffset(stage);
    constexpr int kAtOnce = kTileThreads * 2 / kDim;  // keys whose words the CTA takes together
    const int first = threadIdx.x / (kDim / 2), word = threadIdx.x % (kDim / 2);
    const int lane = word % 16 / 4, part = word % 4;
    const uint16_t* from = reinterpret_cast<const uint16_t*>(tile.k) + first * kDim + word * 2;
    k += word / 32 * kColumnTile + lane * 4;
    const bool whole = tile.live >= kTileKeys && tile.keep == nullptr;
#pragma unroll 8
    for (int key = first; key < kTileKeys; key += kAtOnce) {
      const bool live = whole || (key < tile.live && (tile.keep == nullptr || tile.keep[key] != 0));
      CopyAsync4(k + SwizzledOffset(key, word % 32 / 16 * 4 + part), from, live);
      from += kAtOnce * kDim;
    }
    CopyRowsAsync<kDim / 8>(tile, tile.v, shared_ + KeyOffset(stage) + Layout::kTileBytes,
                            kColumnTile);
    const int* entries = t_.entries + int64_t{work.item.y} * t_.PerKv() + work.item.first;
    for (int i = threadIdx.x; i < work.item.count; i += kTileThreads) {
      CopyAsync4(Entries(stage) + i, entries + i, true);
    }
  }

  __device__ Place PlaceOf(const Work& work, int stage, int first) const {
    Place place;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + warp_ * 16 + half * 8 + lane_ / 4;
      const bool real = row < work.rows;
      const int token = real ? Quotient(row, work.inverse_group) : 0;
      const int g = real ? row - token * work.group : 0;
      const int call_row = t_.begin + Entries(stage)[token];
      place.to[half] = real ? (work.item.first + token) * t_.group_stride + g : -1;
      place.visible[half] =
          min(kTileKeys, t_.rows.row_begin + call_row - work.item.block * kTileKeys + 1);
      const int head = t_.rows.heads == HeadMap::kSlots
                           ? (work.kv_head * kSlotsPerKvHead + g) % kSlotHeads
                           : work.kv_head * work.group + g;
      const int64_t at = int64_t{call_row} * t_.query_stride + head * (kDim / 8) + (lane_ & 3);
      place.from[half] = static_cast<const uint4*>(t_.rows.q.data) + (kBf16Queries ? at : 2 * at);
      const bool zero = t_.rows.zero_unless != nullptr && !t_.rows.zero_unless[call_row];
      if (zero) place.from[half] = kBf16Queries ? kZeroQuery : nullptr;
    }
    return place;
  }

  // The lanes of a quad take 16 bytes each, which are two products' worth: of every 32 columns, the
  // products see 8 l + 0..3 (l = 0..3) first and 8 l + 4..7 then. Nothing here waits for them.
  __device__ void LoadQueries(const Place& place, Queries& q) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kDim / 32; ++i) {
        uint4 x;
        if constexpr (kBf16Queries) {
          x = static_cast<const uint4*>(place.from[half])[i * 4];
        } else {
          x = LoadEightBf16(place.from[half], false, i * 32);
        }
        q[2 * i][half] = x.x;
        q[2 * i][2 + half] = x.y;
        q[2 * i + 1][half] = x.z;
        q[2 * i + 1][2 + half] = x.w;
      }
    }
  }

  __device__ void Score(int stage, const Queries& q, float (&s)[kKeyTiles][4]) const {
    const uint32_t k = address_ + KeyOffset(stage);
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      const uint32_t at = k + d / 4 * kColumnTile + d % 4 * 32;
      MultiplyTile<false>(s, q[d], TileDescriptor(at, 16, 1024), d > 0);
    }
  }

  __device__ void Slice(const Work& work, int stage, const Place& place,
                        float (&s)[kKeyTiles][4]) const {
    const int64_t base = int64_t{work.item.y} * t_.PerKv() * t_.group_stride;
    if (!__all_sync(kFullWarp, place.visible[0] >= kTileKeys && place.visible[1] >= kTileKeys)) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = n * 8 + (lane_ & 3) * 2 + (i & 1);
          s[n][i] = key < place.visible[i >> 1] ? s[n][i] : kMinusInf;
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float top = RowTop(s, half, kMinusInf);
      const float highest = top == kMinusInf ? 0.0f : top * log2_scale_;
      float sum = RowWeights(s, half, log2_scale_, highest);
      sum += __shfl_xor_sync(kFullWarp, sum, 1);
      sum += __shfl_xor_sync(kFullWarp, sum, 2);
      if (place.to[half] >= 0 && (lane_ & 3) == 0) {
        t_.sums[base + place.to[half]] = make_float2(highest, sum);
      }
    }
    uint32_t p[kKeyTiles / 2][4];
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
      p[n / 2][(n & 1) * 2] = PackBf16(s[n][0], s[n][1]);
      p[n / 2][(n & 1) * 2 + 1] = PackBf16(s[n][2], s[n][3]);
    }
    float out[kDimTiles][4];
    FenceProducts();
    const uint32_t v = address_ + KeyOffset(stage) + Layout::kTileBytes;
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      MultiplyTile<true>(out, p[k], TileDescriptor(v + k * 2048, kColumnTile, 1024), k > 0);
    }
    CommitProducts();
    WaitProducts<0>();
    AfterWait(out);
    Store(base, place, out);
  }

  __device__ void Store(int64_t base, const Place& place, const float (&out)[kDimTiles][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (place.to[half] < 0) continue;
      uint16_t* to = t_.partial + (base + place.to[half]) * kDim + (lane_ & 3) * 8;
      uint32_t x[4];
#pragma unroll
      for (int n = 0; n < kDimTiles; ++n) {
        x[n % 4] = PackBf16(out[n][half * 2], out[n][half * 2 + 1]);
        if (n % 4 == 3) {
          *reinterpret_cast<uint4*>(to + n / 4 * 32) = make_uint4(x[0], x[1], x[2], x[3]);
        }
      }
    }
  }

  const GatherTask& t_;
  const uint32_t address_;
  char* const shared_;
  const float log2_scale_;
  const int warp_;
  const int lane_;
};
#endif  // VIDEONSA_WGMMA

template <int kDim, bool kBf16Queries>
__global__ void __launch_bounds__(kTileThreads, kWideGatherCtas)
    WideGatherKernel(const __grid_constant__ GatherTask task, float log2_scale) {
#ifdef VIDEONSA_WGMMA
  extern __shared__ __align__(16) char shared[];
  WideGather<kDim, kBf16Queries>(task, shared, log2_scale).Run();
#else
  __trap();  // never launched: the launcher asks for the architecture
#endif
}

}  // namespace videonsa::cuda
