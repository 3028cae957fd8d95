#include "kernels/attention/cuda_attention.h"
#include "kernels/common/mma.cuh"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kWarps = 8;

// Maximum (log2) and sum of exponentials of one block's logits, by [row, head, block].
struct MassTask {
  CudaAttentionMassParams p;
  int num_blocks = 0;

  __device__ float2* At(int row, int head) const {
    return static_cast<float2*>(p.scratch.data) +
           (int64_t{row} * p.num_q_heads + head) * num_blocks;
  }
};

// A warp takes one block of one row and head; a lane two keys.
template <typename T>
__global__ void __launch_bounds__(kWarps * 32)
    BlockMassKernel(const __grid_constant__ MassTask task) {
  extern __shared__ float q[];  // [head_dim]
  const CudaAttentionMassParams& p = task.p;
  const int head = blockIdx.y, row = blockIdx.z, head_dim = p.kv.head_dim;
  if (p.skip_rows != nullptr && p.skip_rows[row]) return;
  for (int d = threadIdx.x; d < head_dim; d += blockDim.x) {
    q[d] = LoadElement(p.q.data, p.q.dtype == DType::kBF16,
                       row * p.q.row_stride + int64_t{head} * head_dim + d);
  }
  __syncthreads();
  const int block = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x / 32);
  const int lane = threadIdx.x % 32, keys = p.row_begin + row + 1 - block * kKvPageTokens;
  if (keys <= 0) return;
  const int64_t tile =
      int64_t{p.kv.page_ids[block]} * p.kv.num_kv_heads + head * p.kv.num_kv_heads / p.num_q_heads;
  const T* k = static_cast<const T*>(p.kv.k_pages) + tile * kKvPageTokens * head_dim;
  float s[2];
  for (int i = 0; i < 2; ++i) {
    const int key = lane + 32 * i;
    float dot = 0;
    for (int d = 0; key < keys && d < head_dim; ++d) {
      dot = fmaf(q[d], ToFloat(k[key * head_dim + d]), dot);
    }
    s[i] = key < keys ? dot * p.scale * kLog2E : kMinusInf;
  }
  const float top = WarpMax(fmaxf(s[0], s[1]));
  const float sum = WarpSum(exp2f(s[0] - top) + exp2f(s[1] - top));
  if (lane == 0) task.At(row, head)[block] = make_float2(top, sum);
}

// CTA: one row and head; every block's sum becomes its share of the row.
__global__ void __launch_bounds__(256) ShareKernel(const __grid_constant__ MassTask task) {
  const CudaAttentionMassParams& p = task.p;
  const int head = blockIdx.x, row = blockIdx.y;
  if (p.skip_rows != nullptr && p.skip_rows[row]) return;
  const int blocks = (p.row_begin + row) / kKvPageTokens + 1;
  float2* at = task.At(row, head);
  __shared__ float tops[8];
  __shared__ double sums[256];
  float top = kMinusInf;
  for (int b = threadIdx.x; b < blocks; b += 256) top = fmaxf(top, at[b].x);
  top = WarpMax(top);
  if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
  __syncthreads();
  for (float other : tops) top = fmaxf(top, other);
  double sum = 0;
  for (int b = threadIdx.x; b < blocks; b += 256) sum += exp2f(at[b].x - top) * at[b].y;
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int width = 128; width > 0; width /= 2) {
    if (static_cast<int>(threadIdx.x) < width) sums[threadIdx.x] += sums[threadIdx.x + width];
    __syncthreads();
  }
  for (int b = threadIdx.x; b < blocks; b += 256) {
    at[b].y = static_cast<float>(exp2f(at[b].x - top) * at[b].y / sums[0]);
  }
}

// A thread adds up one block over rows and heads in order.
__global__ void AddMassKernel(const __grid_constant__ MassTask task) {
  const CudaAttentionMassParams& p = task.p;
  const int block = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (block >= task.num_blocks) return;
  double sum = 0;
  for (int row = 0; row < p.row_end - p.row_begin; ++row) {
    if (p.skip_rows != nullptr && p.skip_rows[row]) continue;
    if ((p.row_begin + row) / kKvPageTokens < block) continue;
    for (int head = 0; head < p.num_q_heads; ++head) sum += task.At(row, head)[block].y;
  }
  p.mass[block] += sum;
}

template <typename T>
CudaStatus Launch(const MassTask& task, CudaStream stream) {
  const CudaAttentionMassParams& p = task.p;
  const auto rows = static_cast<unsigned>(p.row_end - p.row_begin);
  const auto heads = static_cast<unsigned>(p.num_q_heads);
  const auto blocks = static_cast<unsigned>(task.num_blocks);
  BlockMassKernel<T><<<dim3((blocks + kWarps - 1) / kWarps, heads, rows), kWarps * 32,
                       p.kv.head_dim * sizeof(float), stream>>>(task);
  ShareKernel<<<dim3(heads, rows), 256, 0, stream>>>(task);
  AddMassKernel<<<(blocks + 63) / 64, 64, 0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace
}  // namespace cuda

size_t CudaAttentionMassScratchBytes(int num_rows, int max_kv_len, int num_q_heads) {
  const size_t blocks = static_cast<size_t>((max_kv_len + kKvPageTokens - 1) / kKvPageTokens);
  return sizeof(float2) * static_cast<size_t>(num_rows) * num_q_heads * blocks;
}

CudaStatus LaunchAttentionMass(const CudaAttentionMassParams& p, CudaStream stream) {
  const int rows = p.row_end - p.row_begin;
  if (rows <= 0) return cudaSuccess;
  if (p.scratch.bytes < CudaAttentionMassScratchBytes(rows, p.row_end, p.num_q_heads)) {
    return cudaErrorInvalidValue;
  }
  const cuda::MassTask task{p, (p.row_end + kKvPageTokens - 1) / kKvPageTokens};
  if (p.kv.dtype == DType::kF32) return cuda::Launch<float>(task, stream);
  if (p.kv.dtype == DType::kBF16) return cuda::Launch<__nv_bfloat16>(task, stream);
  return cudaErrorInvalidValue;
}

}  // namespace videonsa
