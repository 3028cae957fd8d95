#include "kernels/attention/cuda_attention.h"
#include "kernels/common/mma.cuh"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRowsPerCta = 64;

// Page and token of a row, or page -1.
struct Place {
  int64_t page = -1;
  int token = 0;
};

__device__ Place PlaceOf(const CudaKvAppendParams& p, int row) {
  Place place;
  if (p.page_tables == nullptr) {
    const int position = p.token_begin + row;
    place.page = p.kv.page_ids[position / kKvPageTokens];
    place.token = position % kKvPageTokens;
  } else if (p.kv_lens[row] > 0) {
    const int position = p.kv_lens[row] - 1;
    place.page = p.page_tables[row * p.table_stride + position / kKvPageTokens];
    place.token = position % kKvPageTokens;
  }
  return place;
}

template <typename T>
__device__ void StoreAs(void* to, int64_t at, float x) {
  StoreElement(to, sizeof(T) == 2, at, x);
}

// CTA: kRowsPerCta rows of one KV head.
template <typename T>
__global__ void __launch_bounds__(kThreads) WriteKernel(CudaKvAppendParams p) {
  const int kv_head = blockIdx.y, head_dim = p.kv.head_dim;
  const int row_begin = blockIdx.x * kRowsPerCta;
  const int rows = min(kRowsPerCta, p.num_rows - row_begin);
  const bool k_bf16 = p.k.dtype == DType::kBF16, v_bf16 = p.v.dtype == DType::kBF16;
  for (int i = threadIdx.x; i < rows * head_dim; i += kThreads) {
    const int row = row_begin + i / head_dim, d = i % head_dim;
    const Place place = PlaceOf(p, row);
    if (place.page < 0) continue;
    const int64_t to =
        ((place.page * p.kv.num_kv_heads + kv_head) * kKvPageTokens + place.token) * head_dim + d;
    const int64_t column = int64_t{kv_head} * head_dim + d;
    StoreAs<T>(p.kv.k_pages, to, LoadElement(p.k.data, k_bf16, row * p.k.row_stride + column));
    StoreAs<T>(p.kv.v_pages, to, LoadElement(p.v.data, v_bf16, row * p.v.row_stride + column));
  }
}

// CTA: the pages that the rows of one WriteKernel CTA filled. Sums run over the tokens in order.
template <typename T>
__global__ void __launch_bounds__(kThreads) PoolKernel(CudaKvAppendParams p) {
  const int kv_head = blockIdx.y, head_dim = p.kv.head_dim;
  const int row_begin = blockIdx.x * kRowsPerCta;
  const int row_end = min(row_begin + kRowsPerCta, p.num_rows);
  for (int row = row_begin; row < row_end; ++row) {
    const Place place = PlaceOf(p, row);
    if (place.page < 0 || place.token != kKvPageTokens - 1) continue;
    const int64_t tile = place.page * p.kv.num_kv_heads + kv_head;
    const T* k = static_cast<const T*>(p.kv.k_pages) + tile * kKvPageTokens * head_dim;
    const T* v = static_cast<const T*>(p.kv.v_pages) + tile * kKvPageTokens * head_dim;
    for (int d = threadIdx.x; d < 2 * head_dim; d += kThreads) {
      const T* from = d < head_dim ? k + d : v + d - head_dim;
      float* to = d < head_dim ? p.kv.k_pooled + d : p.kv.v_pooled + d - head_dim;
      float sum = 0;
#pragma unroll 16
      for (int token = 0; token < kKvPageTokens; ++token) sum += ToFloat(from[token * head_dim]);
      to[tile * head_dim] = sum / kKvPageTokens;
    }
  }
}

template <typename T>
CudaStatus Append(const CudaKvAppendParams& p, CudaStream stream) {
  const dim3 grid(static_cast<unsigned>((p.num_rows + kRowsPerCta - 1) / kRowsPerCta),
                  static_cast<unsigned>(p.kv.num_kv_heads));
  WriteKernel<T><<<grid, kThreads, 0, stream>>>(p);
  if (p.kv.k_pooled != nullptr) PoolKernel<T><<<grid, kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace
}  // namespace cuda

CudaStatus LaunchKvAppend(const CudaKvAppendParams& p, CudaStream stream) {
  if (p.num_rows <= 0) return cudaSuccess;
  if (p.kv.dtype == DType::kF32) return cuda::Append<float>(p, stream);
  if (p.kv.dtype == DType::kBF16) return cuda::Append<__nv_bfloat16>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace videonsa
