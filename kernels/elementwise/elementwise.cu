#include <algorithm>

#include "kernels/common/mma.cuh"
#include "kernels/elementwise/cuda_elementwise.h"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kThreads = 256;
// Elements one thread handles at a time where rows allow it.
constexpr int kVector = 4;
constexpr int kWideVector = 8;

// Copies neighbouring bytes in as few pieces of 16 or 8 as there are.
template <int kBytes>
__device__ void Move(void* to, const void* from) {
  if constexpr (kBytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      static_cast<uint4*>(to)[i] = static_cast<const uint4*>(from)[i];
    }
  } else {
    static_assert(kBytes == 8);
    *static_cast<uint2*>(to) = *static_cast<const uint2*>(from);
  }
}

struct Rows {
  char* data;
  int64_t stride;
  bool is_bf16;

  Rows(CudaConstRows r)
      : data(static_cast<char*>(const_cast<void*>(r.data))),
        stride(r.row_stride),
        is_bf16(r.dtype == DType::kBF16) {}

  template <int kWidth>
  __device__ void Load(int64_t row, int column, float (&x)[kWidth]) const {
    const int64_t at = row * stride + column;
    if constexpr (kWidth == 1) {
      x[0] = LoadElement(data, is_bf16, at);
    } else if (is_bf16) {
      alignas(16) uint32_t pairs[kWidth / 2];
      Move<kWidth * 2>(pairs, data + 2 * at);
#pragma unroll
      for (int i = 0; i < kWidth / 2; ++i) {
        x[2 * i] = __uint_as_float(pairs[i] << 16);
        x[2 * i + 1] = __uint_as_float(pairs[i] & 0xFFFF0000u);
      }
    } else {
      Move<kWidth * 4>(x, data + 4 * at);
    }
  }
  template <int kWidth>
  __device__ void Store(int64_t row, int column, const float (&x)[kWidth]) const {
    const int64_t at = row * stride + column;
    if constexpr (kWidth == 1) {
      StoreElement(data, is_bf16, at, x[0]);
    } else if (is_bf16) {
      alignas(16) uint32_t pairs[kWidth / 2];
#pragma unroll
      for (int i = 0; i < kWidth / 2; ++i) pairs[i] = PackBf16(x[2 * i], x[2 * i + 1]);
      Move<kWidth * 2>(data + 2 * at, pairs);
    } else {
      Move<kWidth * 4>(data + 4 * at, x);
    }
  }
  // Whether rows may be read `width` elements at a time from a multiple of them on.
  bool Aligned(int width) const {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % width == 0;
  }
};

template <int kWidth>
__device__ void LoadVector(const float* from, int column, float (&x)[kWidth]) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) x[i] = from == nullptr ? 0.0f : from[column + i];
}

__device__ float Gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
__device__ float Silu(float x) { return x / (1.0f + __expf(-x)); }

// One CTA a row; the sum of squares is joined in a fixed order.
template <int kWidth>
__global__ void RmsNormKernel(Rows x, Rows out, const float* weight, float eps, int columns) {
  __shared__ float partial[kThreads / 32];
  const int64_t row = blockIdx.x;
  float sum = 0;
  for (int c = threadIdx.x * kWidth; c < columns; c += kThreads * kWidth) {
    alignas(16) float v[kWidth];
    x.Load(row, c, v);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum = fmaf(v[i], v[i], sum);
  }
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) sum += partial[i];
  const float factor = 1.0f / sqrtf(sum / static_cast<float>(columns) + eps);
  for (int c = threadIdx.x * kWidth; c < columns; c += kThreads * kWidth) {
    alignas(16) float v[kWidth];
    float w[kWidth];
    x.Load(row, c, v);
    LoadVector(weight, c, w);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v[i] = v[i] * factor * w[i];
    out.Store(row, c, v);
  }
}

// Of items of a grid by items of a row; a division of 64 bits costs several of 32.
__device__ int64_t RowOf(int64_t item, int64_t items, int per_row) {
  if (items >> 32 != 0) return item / per_row;
  return static_cast<uint32_t>(item) / static_cast<uint32_t>(per_row);
}

// The grid walks over (row, group of kWidth columns).
template <int kWidth, typename Body>
__global__ void ElementwiseKernel(int64_t rows, int columns, Body body) {
  const int per_row = columns / kWidth;
  const int64_t total = rows * per_row;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = RowOf(i, total, per_row);
    body.template Run<kWidth>(row, static_cast<int>(i - row * per_row) * kWidth);
  }
}

struct SwiGluBody {
  Rows gate, up, out;

  template <int kWidth>
  __device__ void Run(int64_t row, int column) const {
    alignas(16) float g[kWidth];
    alignas(16) float u[kWidth];
    gate.Load(row, column, g);
    up.Load(row, column, u);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) g[i] = Silu(g[i]) * u[i];
    out.Store(row, column, g);
  }
};

struct BiasActBody {
  Rows x, out;
  const float* bias;
  CudaUnary unary;
  bool accumulate;

  template <int kWidth>
  __device__ void Run(int64_t row, int column) const {
    alignas(16) float v[kWidth];
    alignas(16) float before[kWidth];
    float b[kWidth];
    x.Load(row, column, v);
    LoadVector(bias, column, b);
    if (accumulate) out.Load(row, column, before);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      v[i] += b[i];
      if (unary == CudaUnary::kGelu) v[i] = Gelu(v[i]);
      if (unary == CudaUnary::kSilu) v[i] = Silu(v[i]);
      if (accumulate) v[i] += before[i];
    }
    out.Store(row, column, v);
  }
};

struct CopyBody {
  Rows x, out;
  const int32_t* from;
  const int32_t* to;

  template <int kWidth>
  __device__ void Run(int64_t row, int column) const {
    const int64_t source = from == nullptr ? row : from[row];
    const int64_t target = to == nullptr ? row : to[row];
    if (source < 0 || target < 0) return;
    alignas(16) float v[kWidth];
    x.Load(source, column, v);
    out.Store(target, column, v);
  }
};

template <int kWidth, typename Body>
CudaStatus LaunchWidth(int64_t rows, int columns, const Body& body, CudaStream stream) {
  const int64_t items = rows * (columns / kWidth);
  const int64_t grid = std::min<int64_t>((items + kThreads - 1) / kThreads, int64_t{1} << 20);
  ElementwiseKernel<kWidth>
      <<<static_cast<unsigned>(grid), kThreads, 0, stream>>>(rows, columns, body);
  return cudaGetLastError();
}

// aligned(width): whether all rows are.
template <typename Body, typename Aligned>
CudaStatus LaunchElementwise(int64_t rows, int columns, const Aligned& aligned, const Body& body,
                             CudaStream stream) {
  if (rows <= 0 || columns <= 0) return cudaSuccess;
  if (columns % kWideVector == 0 && aligned(kWideVector)) {
    return LaunchWidth<kWideVector>(rows, columns, body, stream);
  }
  if (columns % kVector == 0 && aligned(kVector)) {
    return LaunchWidth<kVector>(rows, columns, body, stream);
  }
  return LaunchWidth<1>(rows, columns, body, stream);
}

__global__ void RopeAnglesKernel(CudaRopeAnglesParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.rows * p.half) return;
  const int64_t row = i / p.half;
  const int j = static_cast<int>(i - row * p.half);
  const float angle = p.frequencies[j] * static_cast<float>(p.positions[p.axes[j]][row]);
  p.cos[i] = cosf(angle);
  p.sin[i] = sinf(angle);
}

// A thread rotates kWidth neighbouring pairs.
template <int kWidth>
__global__ void RopeKernel(Rows x, CudaRopeParams p) {
  const int half = p.head_dim / 2, steps = half / kWidth, per_row = p.num_heads * steps;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x, items = p.rows * per_row;
  if (i >= items) return;
  const int64_t row = RowOf(i, items, per_row);
  const int in_row = static_cast<int>(i - row * per_row);
  const int d = in_row % steps * kWidth, column = in_row / steps * p.head_dim + d;
  const int64_t table = (p.order == nullptr ? row : p.order[row]) * half + d;
  alignas(16) float a[kWidth], b[kWidth], c[kWidth], s[kWidth];
  x.Load(row, column, a);
  x.Load(row, column + half, b);
  if constexpr (kWidth == 1) {
    c[0] = p.cos[table], s[0] = p.sin[table];
  } else {
    Move<kWidth * 4>(c, p.cos + table);
    Move<kWidth * 4>(s, p.sin + table);
  }
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const float low = fmaf(-b[k], s[k], a[k] * c[k]);
    b[k] = fmaf(a[k], s[k], b[k] * c[k]);
    a[k] = low;
  }
  x.Store(row, column, a);
  x.Store(row, column + half, b);
}

unsigned Ctas(int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

}  // namespace
}  // namespace cuda

CudaStatus LaunchRmsNorm(const CudaRmsNormParams& p, CudaStream stream) {
  if (p.rows <= 0) return cudaSuccess;
  const cuda::Rows x(p.x), out(p.out);
  const auto ctas = static_cast<unsigned>(p.rows);
  if (x.Aligned(cuda::kVector) && out.Aligned(cuda::kVector) && p.columns % cuda::kVector == 0) {
    cuda::RmsNormKernel<cuda::kVector>
        <<<ctas, cuda::kThreads, 0, stream>>>(x, out, p.weight, p.eps, p.columns);
  } else {
    cuda::RmsNormKernel<1><<<ctas, cuda::kThreads, 0, stream>>>(x, out, p.weight, p.eps, p.columns);
  }
  return cudaGetLastError();
}

CudaStatus LaunchSwiGlu(const CudaSwiGluParams& p, CudaStream stream) {
  const cuda::SwiGluBody body{p.gate, p.up, CudaConstRows(p.out)};
  const auto aligned = [&](int width) {
    return body.gate.Aligned(width) && body.up.Aligned(width) && body.out.Aligned(width);
  };
  return cuda::LaunchElementwise(p.rows, p.columns, aligned, body, stream);
}

CudaStatus LaunchBiasAct(const CudaBiasActParams& p, CudaStream stream) {
  const cuda::BiasActBody body{p.x, CudaConstRows(p.out), p.bias, p.unary, p.accumulate};
  const auto aligned = [&](int width) { return body.x.Aligned(width) && body.out.Aligned(width); };
  return cuda::LaunchElementwise(p.rows, p.columns, aligned, body, stream);
}

CudaStatus LaunchCopyRows(const CudaCopyRowsParams& p, CudaStream stream) {
  const cuda::CopyBody body{p.x, CudaConstRows(p.out), p.from, p.to};
  const auto aligned = [&](int width) { return body.x.Aligned(width) && body.out.Aligned(width); };
  return cuda::LaunchElementwise(p.rows, p.columns, aligned, body, stream);
}

CudaStatus LaunchRopeAngles(const CudaRopeAnglesParams& p, CudaStream stream) {
  if (p.rows <= 0 || p.half <= 0) return cudaSuccess;
  cuda::RopeAnglesKernel<<<cuda::Ctas(p.rows * p.half), cuda::kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

CudaStatus LaunchRope(const CudaRopeParams& p, CudaStream stream) {
  if (p.head_dim % 4 != 0) return cudaErrorInvalidValue;
  if (p.rows <= 0 || p.num_heads <= 0) return cudaSuccess;
  const cuda::Rows x{CudaConstRows(p.x)};
  const int64_t pairs = p.rows * p.num_heads * (p.head_dim / 2);
  const auto is_aligned = [](const float* table) {
    return reinterpret_cast<uintptr_t>(table) % 16 == 0;
  };
  constexpr int kWide = cuda::kWideVector;
  if (p.head_dim % (2 * kWide) == 0 && x.Aligned(kWide) && is_aligned(p.cos) && is_aligned(p.sin)) {
    cuda::RopeKernel<kWide><<<cuda::Ctas(pairs / kWide), cuda::kThreads, 0, stream>>>(x, p);
  } else {
    cuda::RopeKernel<1><<<cuda::Ctas(pairs), cuda::kThreads, 0, stream>>>(x, p);
  }
  return cudaGetLastError();
}

}  // namespace videonsa
