#include "kernels/common/cuda_scratch.h"
#include "kernels/common/wide_tile.cuh"
#include "kernels/nsa/gathered_wide.cuh"

namespace videonsa::cuda {
namespace {

constexpr int kScanThreads = 1024;
constexpr int kRankThreads = 1024;
constexpr int kRankRows = 256;
constexpr int kRanksPerThread = 16;  // of 64 blocks a row at most
constexpr int64_t kPartialBytes = int64_t{2} << 30;

__device__ int2 InclusiveWarpSums(int2 x) {
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int a = __shfl_up_sync(kFullWarp, x.x, d), b = __shfl_up_sync(kFullWarp, x.y, d);
    if (static_cast<int>(threadIdx.x % 32) >= d) x = make_int2(x.x + a, x.y + b);
  }
  return x;
}

// CTA: kRankRows rows of one KV head. Places are given out in shared memory first, so that global
// counters, which all CTAs share, are touched once a block.
__global__ void __launch_bounds__(kRankThreads) RankKernel(const __grid_constant__ GatherTask t) {
  extern __shared__ int taken[];  // [num_blocks]
  const int y = blockIdx.y, first = static_cast<int>(blockIdx.x) * kRankRows * t.rows.count;
  const int last = min(first + kRankRows * t.rows.count, t.PerKv());
  for (int b = threadIdx.x; b < t.num_blocks; b += kRankThreads) taken[b] = 0;
  __syncthreads();
  int block[kRanksPerThread], rank[kRanksPerThread];
#pragma unroll
  for (int k = 0; k < kRanksPerThread; ++k) {
    const int i = first + k * kRankThreads + static_cast<int>(threadIdx.x);
    block[k] = i < last ? t.BlockOf(y, i) : -1;
    rank[k] = block[k] >= 0 ? atomicAdd(&taken[block[k]], 1) : 0;
  }
  __syncthreads();
  for (int b = threadIdx.x; b < t.num_blocks; b += kRankThreads) {
    if (taken[b] > 0) taken[b] = atomicAdd(&t.counts[y * t.num_blocks + b], taken[b]);
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kRanksPerThread; ++k) {
    const int i = first + k * kRankThreads + static_cast<int>(threadIdx.x);
    if (block[k] >= 0) t.places[int64_t{y} * t.PerKv() + i] = taken[block[k]] + rank[k];
  }
}

// CTA: one KV head. Places of the blocks' entries, in order of the blocks, and the work items;
// which KV head's items come first is left to chance.
__global__ void __launch_bounds__(kScanThreads) ItemsKernel(const __grid_constant__ GatherTask t) {
  __shared__ int2 sums[32];
  __shared__ int first_item;
  const int y = blockIdx.x, per_thread = (t.num_blocks + kScanThreads - 1) / kScanThreads;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int tokens = min(kItemRows / t.rows.Group(t.KvHead(y)), kItemEntries);
  const int first = threadIdx.x * per_thread, last = min(first + per_thread, t.num_blocks);
  const int* counts = t.counts + y * t.num_blocks;
  int2 mine = make_int2(0, 0);  // entries, items
  for (int b = first; b < last; ++b) {
    mine.x += counts[b];
    mine.y += (counts[b] + tokens - 1) / tokens;
  }
  int2 before = InclusiveWarpSums(mine);
  if (lane == 31) sums[warp] = before;
  __syncthreads();
  if (warp == 0) {
    const int2 all = InclusiveWarpSums(sums[lane]);
    if (lane == 31) first_item = atomicAdd(t.NumItems(), all.y);
    sums[lane] = all;
  }
  __syncthreads();
  if (warp > 0) before = make_int2(before.x + sums[warp - 1].x, before.y + sums[warp - 1].y);
  int entry = before.x - mine.x, item = first_item + before.y - mine.y;
  for (int b = first; b < last; ++b) {
    t.starts[y * t.num_blocks + b] = entry;
    const int page = counts[b] > 0 ? t.rows.page_ids[b] : 0;
    // Even shares: a last item of a few rows would fetch its block for nothing.
    const int shares = (counts[b] + tokens - 1) / tokens;
    for (int i = 0, done = 0; i < shares; ++i) {
      const int share = (counts[b] - done) / (shares - i);
      t.items[item++] = Item{b, page, entry + done, share, y};
      done += share;
    }
    entry += counts[b];
  }
}

__global__ void __launch_bounds__(256) PlaceKernel(const __grid_constant__ GatherTask t) {
  const int i = blockIdx.x * 256 + threadIdx.x, y = blockIdx.y;
  if (i >= t.PerKv()) return;
  const int block = t.BlockOf(y, i);
  if (block < 0) return;
  const int64_t base = int64_t{y} * t.PerKv();
  const int place = t.starts[y * t.num_blocks + block] + t.places[base + i];
  t.places[base + i] = place;
  t.entries[base + place] = i / t.rows.count;
}

// A warp's weights of the partial results of one row and query head: lane l holds the list's
// entries l and l + 32.
struct JoinWeights {
  float weight[2];
  int row[2];  // partial row
  float total;

  __device__ JoinWeights(const GatherTask& t, const int* places, const int32_t* blocks,
                         const float2* sums) {
    float share[2], top = kMinusInf;
    for (int i = 0; i < 2; ++i) {
      const int entry = static_cast<int>(threadIdx.x % 32) + 32 * i;
      const bool real = entry < t.rows.count && blocks[entry] >= 0;
      row[i] = real ? places[entry] * t.group_stride : 0;
      const float2 sum = real ? sums[row[i]] : make_float2(kMinusInf, 0.0f);
      weight[i] = sum.x;
      share[i] = sum.y;
      top = fmaxf(top, weight[i]);
    }
    top = WarpMax(top);
    for (float& w : weight) w = w == kMinusInf ? 0.0f : exp2f(w - top);
    total = WarpSum(fmaf(weight[0], share[0], weight[1] * share[1]));
  }
  // Of one entry of the list, which may differ between lanes; every lane calls.
  __device__ float Weight(int entry) const {
    const float low = __shfl_sync(kFullWarp, weight[0], entry % 32);
    const float high = __shfl_sync(kFullWarp, weight[1], entry % 32);
    return entry < 32 ? low : entry < 64 ? high : 0.0f;
  }
  __device__ int Row(int entry) const {
    const int low = __shfl_sync(kFullWarp, row[0], entry % 32);
    const int high = __shfl_sync(kFullWarp, row[1], entry % 32);
    return entry < 32 ? low : high;
  }
};

// Eight neighbouring numbers of a partial row become part of the row's output.
template <bool kFragments>
__device__ void StoreJoined(const RowOutput& to, int position, float total, const float (&out)[8]) {
  const float factor = total > 0 ? to.factor / total : 0.0f;
  float2 before[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int column = kFragments ? PartialColumn(position, k) : position + 2 * k;
    before[k] = to.add == nullptr ? make_float2(0.0f, 0.0f)
                                  : *reinterpret_cast<const float2*>(to.add + column);
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int column = kFragments ? PartialColumn(position, k) : position + 2 * k;
    const float a = fmaf(out[2 * k], factor, before[k].x);
    const float b = fmaf(out[2 * k + 1], factor, before[k].y);
    if (to.is_bf16) {
      *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(to.data) + to.offset + column) =
          PackBf16(a, b);
    } else {
      *reinterpret_cast<float2*>(static_cast<float*>(to.data) + to.offset + column) =
          make_float2(a, b);
    }
  }
}

// A warp joins the partial results of one row and query head: a few lanes take one of them, eight
// numbers each, in the order of the row's list. kFragments: the numbers lie as PartialColumn says.
template <int kDim, bool kFragments>
__global__ void __launch_bounds__(512) JoinKernel(const __grid_constant__ GatherTask t) {
  constexpr int kLanes = kDim <= 16 ? 2 : kDim <= 32 ? 4 : kDim <= 64 ? 8 : 16;
  constexpr int kAtOnce = 32 / kLanes, kAhead = 8;  // partial rows on their way at a time
  const int y = blockIdx.y, lane = threadIdx.x % 32, g = threadIdx.x / 32;
  const int position = lane % kLanes * 8;
  RowsCta cta;
  cta.kv_head = t.KvHead(y);
  cta.group = t.rows.Group(cta.kv_head);
  cta.token = t.begin + static_cast<int>(blockIdx.x);
  cta.num_tokens = 1;
  if (g >= cta.group || !t.rows.Alive(cta.token)) return;
  const int64_t first = int64_t{y} * t.PerKv() + int64_t{blockIdx.x} * t.rows.count;
  const int64_t base = int64_t{y} * t.PerKv() * t.group_stride + g;
  const JoinWeights weights(
      t, t.places + first,
      t.rows.blocks + (int64_t{cta.token} * t.rows.num_kv_heads + cta.kv_head) * t.rows.count,
      t.sums + base);
  float out[8] = {};
  for (int entry = 0; entry < t.rows.count; entry += kAhead * kAtOnce) {
    float w[kAhead];
    uint4 x[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = entry + i * kAtOnce + lane / kLanes;
      w[i] = weights.Weight(at);
      const int64_t row = base + weights.Row(at);
      x[i] = make_uint4(0, 0, 0, 0);
      if (w[i] > 0 && position < kDim) {
        x[i] = __ldcs(reinterpret_cast<const uint4*>(t.partial + row * kDim + position));
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const uint32_t pair[4] = {x[i].x, x[i].y, x[i].z, x[i].w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        out[2 * k] = fmaf(w[i], __uint_as_float(pair[k] << 16), out[2 * k]);
        out[2 * k + 1] = fmaf(w[i], __uint_as_float(pair[k] & 0xFFFF0000u), out[2 * k + 1]);
      }
    }
  }
#pragma unroll
  for (float& x : out) {
#pragma unroll
    for (int d = kLanes; d < 32; d *= 2) x += __shfl_xor_sync(kFullWarp, x, d);
  }
  if (lane >= kLanes || position >= kDim) return;
  StoreJoined<kFragments>(t.rows.OutputOf(cta, g), position, weights.total, out);
}

// The part that multiplies, and then the joining of what it left.
template <int kDim>
cudaError_t LaunchProducts(const GatherTask& t, float log2_scale, cudaStream_t stream) {
  const auto num_kv = static_cast<unsigned>(t.num_kv);
  const dim3 rows(static_cast<unsigned>(t.end - t.begin), num_kv);
  const auto row_threads = static_cast<unsigned>(t.group_stride * 32);
  if constexpr (kDim % 64 == 0) {
    if (HasWideTiles()) {
      const int bytes = WideGatherLayout<kDim>::kBytes;
      const auto kernel =
          t.rows.q.is_bf16 ? WideGatherKernel<kDim, true> : WideGatherKernel<kDim, false>;
      int device = 0, processors = 0;
      cudaError_t set = cudaGetDevice(&device);
      if (set == cudaSuccess) {
        set = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
      }
      if (set == cudaSuccess) {
        set = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      }
      if (set != cudaSuccess) return set;
      const int ctas = std::min(processors * kWideGatherCtas, t.max_items);
      kernel<<<static_cast<unsigned>(ctas), kTileThreads, bytes, stream>>>(t, log2_scale);
      JoinKernel<kDim, true><<<rows, row_threads, 0, stream>>>(t);
      return cudaGetLastError();
    }
  }
  const int bytes = GatherLayout<kDim>::kBytes;
  const cudaError_t set =
      cudaFuncSetAttribute(GatherKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (set != cudaSuccess) return set;
  GatherKernel<kDim>
      <<<static_cast<unsigned>(t.max_items), kTileThreads, bytes, stream>>>(t, log2_scale);
  JoinKernel<kDim, false><<<rows, row_threads, 0, stream>>>(t);
  return cudaGetLastError();
}

int ChunkRows(int rows, int num_kv, int group, int count, int head_dim) {
  const int64_t fit = kPartialBytes / (int64_t{num_kv} * count * group * head_dim * 2) / 64 * 64;
  return static_cast<int>(std::max<int64_t>(64, std::min<int64_t>(fit, rows)));
}

// Cuts the scratch; returns its bytes.
size_t Cut(GatherTask& t, int rows, int count, int head_dim, void* data) {
  const size_t entries = static_cast<size_t>(t.num_kv) * rows * count;
  const size_t blocks = static_cast<size_t>(t.num_kv) * t.num_blocks;
  t.max_items = t.num_kv * (rows * count / (kItemRows / kSlotsPerKvHead) + t.num_blocks);
  CudaScratchCursor cursor(data);
  t.counts = cursor.Take<int>(blocks + 2);
  t.starts = cursor.Take<int>(blocks);
  t.places = cursor.Take<int>(entries);
  t.entries = cursor.Take<int>(entries);
  t.items = cursor.Take<Item>(t.max_items);
  t.partial = cursor.Take<uint16_t>(entries * t.group_stride * head_dim);
  t.sums = cursor.Take<float2>(entries * t.group_stride);
  return cursor.used();
}

template <int kDim>
cudaError_t LaunchChunk(const GatherTask& t, float scale, cudaStream_t stream) {
  const auto num_kv = static_cast<unsigned>(t.num_kv);
  const int entries = (t.end - t.begin) * t.rows.count;
  const dim3 by_entry(static_cast<unsigned>((entries + 255) / 256), num_kv);
  const cudaError_t cleared = cudaMemsetAsync(
      t.counts, 0, sizeof(int) * (static_cast<size_t>(t.num_kv) * t.num_blocks + 2), stream);
  if (cleared != cudaSuccess) return cleared;
  const dim3 by_row(static_cast<unsigned>((t.end - t.begin + kRankRows - 1) / kRankRows), num_kv);
  const int taken = t.num_blocks * static_cast<int>(sizeof(int));
  const cudaError_t set =
      cudaFuncSetAttribute(RankKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, taken);
  if (set != cudaSuccess) return set;
  RankKernel<<<by_row, kRankThreads, taken, stream>>>(t);
  ItemsKernel<<<num_kv, kScanThreads, 0, stream>>>(t);
  PlaceKernel<<<by_entry, 256, 0, stream>>>(t);
  return LaunchProducts<kDim>(t, scale * kLog2E, stream);
}

int Blocks(int len) { return (len + kTileKeys - 1) / kTileKeys; }

}  // namespace

size_t GatheredScratchBytes(int rows, int len, int num_kv, int group, int count, int head_dim) {
  GatherTask t;
  t.num_kv = num_kv;
  t.num_blocks = Blocks(len);
  t.group_stride = group;
  return Cut(t, ChunkRows(rows, num_kv, group, count, head_dim), count, head_dim, nullptr);
}

cudaError_t LaunchGathered(const SelectedPolicy<__nv_bfloat16>& policy, int num_kv, float scale,
                           CudaScratch scratch, cudaStream_t stream) {
  const int rows = policy.row_end - policy.row_begin;
  GatherTask t;
  t.rows = policy;
  t.num_kv = num_kv;
  t.num_blocks = Blocks(policy.row_end);
  t.query_stride = static_cast<int>(policy.q.stride / 8);
  for (int i = 0; i < num_kv; ++i) {
    t.group_stride = std::max(t.group_stride, policy.Group(policy.kv_first + i * policy.kv_step));
  }
  const int chunk = ChunkRows(rows, num_kv, t.group_stride, policy.count, policy.head_dim);
  if (Cut(t, chunk, policy.count, policy.head_dim, scratch.data) > scratch.bytes ||
      policy.q.stride % 8 != 0 || policy.count > 64) {
    return cudaErrorInvalidValue;
  }
  return DispatchHeadDim(policy.head_dim, [&](auto dim) {
    for (t.begin = 0; t.begin < rows; t.begin += chunk) {
      t.end = std::min(rows, t.begin + chunk);
      const cudaError_t status = LaunchChunk<decltype(dim)::value>(t, scale, stream);
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  });
}

}  // namespace videonsa::cuda
