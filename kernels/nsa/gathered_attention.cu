#include "kernels/common/cuda_scratch.h"
#include "kernels/nsa/gathered_rows.cuh"

namespace videonsa::cuda {
namespace {

constexpr int kScanThreads = 1024;
constexpr int kRankThreads = 1024;
constexpr int kRankRows = 256;
constexpr int kRanksPerThread = 16;  // of 64 blocks a row at most
constexpr int64_t kPartialBytes = int64_t{1} << 30;

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
    if (block[k] >= 0) t.ranks[int64_t{y} * t.PerKv() + i] = taken[block[k]] + rank[k];
  }
}

// CTA: one KV head. Places of the blocks' entries and the work items, in order of the blocks.
__global__ void __launch_bounds__(kScanThreads) ItemsKernel(const __grid_constant__ GatherTask t) {
  __shared__ int2 sums[kScanThreads];
  const int y = blockIdx.x, per_thread = (t.num_blocks + kScanThreads - 1) / kScanThreads;
  const int tokens = kItemRows / t.rows.Group(t.KvHead(y));
  const int first = threadIdx.x * per_thread, last = min(first + per_thread, t.num_blocks);
  const int* counts = t.counts + y * t.num_blocks;
  int2 mine = make_int2(0, 0);  // entries, items
  for (int b = first; b < last; ++b) {
    mine.x += counts[b];
    mine.y += (counts[b] + tokens - 1) / tokens;
  }
  sums[threadIdx.x] = mine;
  __syncthreads();
  for (int d = 1; d < kScanThreads; d *= 2) {
    const bool has = static_cast<int>(threadIdx.x) >= d;
    const int2 other = has ? sums[threadIdx.x - d] : make_int2(0, 0);
    __syncthreads();
    sums[threadIdx.x].x += other.x;
    sums[threadIdx.x].y += other.y;
    __syncthreads();
  }
  int entry = sums[threadIdx.x].x - mine.x, item = sums[threadIdx.x].y - mine.y;
  for (int b = first; b < last; ++b) {
    t.starts[y * t.num_blocks + b] = entry;
    for (int done = 0; done < counts[b]; done += tokens) {
      t.items[int64_t{y} * t.max_items + item++] =
          Item{b, entry + done, min(tokens, counts[b] - done), 0};
    }
    entry += counts[b];
  }
  if (threadIdx.x == kScanThreads - 1) t.num_items[y] = sums[threadIdx.x].y;
}

__global__ void __launch_bounds__(256) PlaceKernel(const __grid_constant__ GatherTask t) {
  const int i = blockIdx.x * 256 + threadIdx.x, y = blockIdx.y;
  if (i >= t.PerKv()) return;
  const int block = t.BlockOf(y, i);
  if (block < 0) return;
  const int64_t base = int64_t{y} * t.PerKv();
  t.entries[base + t.starts[y * t.num_blocks + block] + t.ranks[base + i]] = i;
}

// A warp joins the partial results of one row and query head in the order of the row's list; a lane
// takes four columns.
template <int kDim>
__global__ void __launch_bounds__(512) JoinKernel(const __grid_constant__ GatherTask t) {
  constexpr int kAhead = 8;  // partial rows on their way at a time
  const int y = blockIdx.y, lane = threadIdx.x % 32, g = threadIdx.x / 32, column = lane * 4;
  RowsCta cta;
  cta.kv_head = t.KvHead(y);
  cta.group = t.rows.Group(cta.kv_head);
  cta.token = t.begin + static_cast<int>(blockIdx.x);
  cta.num_tokens = 1;
  if (g >= cta.group || !t.rows.Alive(cta.token)) return;
  const int64_t first = int64_t{y} * t.PerKv() + int64_t{blockIdx.x} * t.rows.count;
  const int32_t* blocks =
      t.rows.blocks + (int64_t{cta.token} * t.rows.num_kv_heads + cta.kv_head) * t.rows.count;
  float lse[2], weight[2], top = kMinusInf;
  for (int i = 0; i < 2; ++i) {
    const int entry = lane + 32 * i;
    const bool real = entry < t.rows.count && blocks[entry] >= 0;
    lse[i] = real ? t.lse2[(first + entry) * t.group_stride + g] : kMinusInf;
    top = fmaxf(top, lse[i]);
  }
  top = WarpMax(top);
  for (int i = 0; i < 2; ++i) weight[i] = lse[i] == kMinusInf ? 0.0f : exp2f(lse[i] - top);
  float out[4] = {}, total = 0;
  const uint16_t* from = t.partial + (first * t.group_stride + g) * kDim + column;
  for (int entry = 0; entry < t.rows.count; entry += kAhead) {
    float w[kAhead];
    uint2 x[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = entry + i;
      w[i] = __shfl_sync(kFullWarp, at < 32 ? weight[0] : weight[1], at % 32);
      x[i] = make_uint2(0, 0);
      if (w[i] > 0 && column < kDim) {
        x[i] = *reinterpret_cast<const uint2*>(from + int64_t{at} * t.group_stride * kDim);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      total += w[i];
      out[0] = fmaf(w[i], __uint_as_float(x[i].x << 16), out[0]);
      out[1] = fmaf(w[i], __uint_as_float(x[i].x & 0xFFFF0000u), out[1]);
      out[2] = fmaf(w[i], __uint_as_float(x[i].y << 16), out[2]);
      out[3] = fmaf(w[i], __uint_as_float(x[i].y & 0xFFFF0000u), out[3]);
    }
  }
  if (column >= kDim) return;
  const RowOutput to = t.rows.OutputOf(cta, g);
  const float factor = total > 0 ? to.factor / total : 0.0f;
  float4 before = make_float4(0, 0, 0, 0);
  if (to.add != nullptr) before = *reinterpret_cast<const float4*>(to.add + column);
  out[0] = fmaf(out[0], factor, before.x);
  out[1] = fmaf(out[1], factor, before.y);
  out[2] = fmaf(out[2], factor, before.z);
  out[3] = fmaf(out[3], factor, before.w);
#pragma unroll
  for (int i = 0; i < 4; ++i) StoreElement(to.data, to.is_bf16, to.offset + column + i, out[i]);
}

int ChunkRows(int rows, int num_kv, int group, int count, int head_dim) {
  const int64_t fit = kPartialBytes / (int64_t{num_kv} * count * group * head_dim * 2) / 64 * 64;
  return static_cast<int>(std::max<int64_t>(64, std::min<int64_t>(fit, rows)));
}

// Cuts the scratch; returns its bytes.
size_t Cut(GatherTask& t, int rows, int count, int head_dim, void* data) {
  const size_t entries = static_cast<size_t>(t.num_kv) * rows * count;
  const size_t blocks = static_cast<size_t>(t.num_kv) * t.num_blocks;
  t.max_items = rows * count / (kItemRows / kSlotsPerKvHead) + t.num_blocks;
  CudaScratchCursor cursor(data);
  t.counts = cursor.Take<int>(blocks);
  t.starts = cursor.Take<int>(blocks);
  t.ranks = cursor.Take<int>(entries);
  t.entries = cursor.Take<int>(entries);
  t.items = cursor.Take<Item>(static_cast<size_t>(t.num_kv) * t.max_items);
  t.num_items = cursor.Take<int>(t.num_kv);
  t.partial = cursor.Take<uint16_t>(entries * t.group_stride * head_dim);
  t.lse2 = cursor.Take<float>(entries * t.group_stride);
  return cursor.used();
}

template <int kDim>
cudaError_t LaunchChunk(const GatherTask& t, float scale, cudaStream_t stream) {
  const auto num_kv = static_cast<unsigned>(t.num_kv);
  const int entries = (t.end - t.begin) * t.rows.count;
  const dim3 by_entry(static_cast<unsigned>((entries + 255) / 256), num_kv);
  const cudaError_t cleared = cudaMemsetAsync(
      t.counts, 0, sizeof(int) * static_cast<size_t>(t.num_kv) * t.num_blocks, stream);
  if (cleared != cudaSuccess) return cleared;
  const dim3 by_row(static_cast<unsigned>((t.end - t.begin + kRankRows - 1) / kRankRows), num_kv);
  const int taken = t.num_blocks * static_cast<int>(sizeof(int));
  cudaError_t set =
      cudaFuncSetAttribute(RankKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, taken);
  if (set != cudaSuccess) return set;
  RankKernel<<<by_row, kRankThreads, taken, stream>>>(t);
  ItemsKernel<<<num_kv, kScanThreads, 0, stream>>>(t);
  PlaceKernel<<<by_entry, 256, 0, stream>>>(t);
  const int bytes = GatherLayout<kDim>::kBytes;
  set =
      cudaFuncSetAttribute(GatherKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (set != cudaSuccess) return set;
  GatherKernel<kDim>
      <<<dim3(static_cast<unsigned>(t.max_items), num_kv), kTileThreads, bytes, stream>>>(
          t, scale * kLog2E);
  JoinKernel<kDim><<<dim3(static_cast<unsigned>(t.end - t.begin), num_kv),
                     static_cast<unsigned>(t.group_stride * 32), 0, stream>>>(t);
  return cudaGetLastError();
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
