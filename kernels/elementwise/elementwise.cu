#include <algorithm>

#include "kernels/common/mma.cuh"
#include "kernels/elementwise/cuda_elementwise.h"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;  // elements one thread handles at a time where rows allow it

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
    if constexpr (kWidth == kVector) {
      if (is_bf16) {
        const uint2 pair = *reinterpret_cast<const uint2*>(data + 2 * at);
        x[0] = __uint_as_float(pair.x << 16);
        x[1] = __uint_as_float(pair.x & 0xFFFF0000u);
        x[2] = __uint_as_float(pair.y << 16);
        x[3] = __uint_as_float(pair.y & 0xFFFF0000u);
      } else {
        const float4 four = *reinterpret_cast<const float4*>(data + 4 * at);
        x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
      }
    } else {
      x[0] = LoadElement(data, is_bf16, at);
    }
  }
  template <int kWidth>
  __device__ void Store(int64_t row, int column, const float (&x)[kWidth]) const {
    const int64_t at = row * stride + column;
    if constexpr (kWidth == kVector) {
      if (is_bf16) {
        *reinterpret_cast<uint2*>(data + 2 * at) =
            make_uint2(PackBf16(x[0], x[1]), PackBf16(x[2], x[3]));
      } else {
        *reinterpret_cast<float4*>(data + 4 * at) = make_float4(x[0], x[1], x[2], x[3]);
      }
    } else {
      StoreElement(data, is_bf16, at, x[0]);
    }
  }
  bool Aligned() const {
    const int64_t size = is_bf16 ? 2 : 4;
    return reinterpret_cast<uintptr_t>(data) % (size * kVector) == 0 && stride % kVector == 0;
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
    float v[kWidth];
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
    float v[kWidth], w[kWidth];
    x.Load(row, c, v);
    LoadVector(weight, c, w);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v[i] = v[i] * factor * w[i];
    out.Store(row, c, v);
  }
}

// The grid walks over (row, group of kWidth columns).
template <int kWidth, typename Body>
__global__ void ElementwiseKernel(int64_t rows, int columns, Body body) {
  const int per_row = columns / kWidth;
  const int64_t total = rows * per_row;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / per_row;
    body.template Run<kWidth>(row, static_cast<int>(i - row * per_row) * kWidth);
  }
}

struct SwiGluBody {
  Rows gate, up, out;

  template <int kWidth>
  __device__ void Run(int64_t row, int column) const {
    float g[kWidth], u[kWidth];
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
    float v[kWidth], b[kWidth], before[kWidth];
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
    float v[kWidth];
    x.Load(source, column, v);
    out.Store(target, column, v);
  }
};

template <typename Body>
CudaStatus LaunchElementwise(int64_t rows, int columns, bool aligned, const Body& body,
                             CudaStream stream) {
  if (rows <= 0 || columns <= 0) return cudaSuccess;
  const bool wide = aligned && columns % kVector == 0;
  const int64_t items = rows * (wide ? columns / kVector : columns);
  const int64_t grid = std::min<int64_t>((items + kThreads - 1) / kThreads, int64_t{1} << 20);
  const auto ctas = static_cast<unsigned>(grid);
  if (wide) {
    ElementwiseKernel<kVector><<<ctas, kThreads, 0, stream>>>(rows, columns, body);
  } else {
    ElementwiseKernel<1><<<ctas, kThreads, 0, stream>>>(rows, columns, body);
  }
  return cudaGetLastError();
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

// A thread rotates two neighbouring pairs.
__global__ void RopeKernel(Rows x, CudaRopeParams p) {
  const int half = p.head_dim / 2, steps = half / 2;
  const int64_t per_row = int64_t{p.num_heads} * steps;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.rows * per_row) return;
  const int64_t row = i / per_row;
  const int in_row = static_cast<int>(i - row * per_row);
  const int d = in_row % steps * 2;
  const int64_t table = (p.order == nullptr ? row : p.order[row]) * half + d;
  const int64_t low = row * x.stride + int64_t{in_row / steps} * p.head_dim + d;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const float c = p.cos[table + k], s = p.sin[table + k];
    const float a = LoadElement(x.data, x.is_bf16, low + k);
    const float b = LoadElement(x.data, x.is_bf16, low + half + k);
    StoreElement(x.data, x.is_bf16, low + k, fmaf(-b, s, a * c));
    StoreElement(x.data, x.is_bf16, low + half + k, fmaf(a, s, b * c));
  }
}

unsigned Ctas(int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

}  // namespace
}  // namespace cuda

CudaStatus LaunchRmsNorm(const CudaRmsNormParams& p, CudaStream stream) {
  if (p.rows <= 0) return cudaSuccess;
  const cuda::Rows x(p.x), out(p.out);
  const auto ctas = static_cast<unsigned>(p.rows);
  if (x.Aligned() && out.Aligned() && p.columns % cuda::kVector == 0) {
    cuda::RmsNormKernel<cuda::kVector>
        <<<ctas, cuda::kThreads, 0, stream>>>(x, out, p.weight, p.eps, p.columns);
  } else {
    cuda::RmsNormKernel<1><<<ctas, cuda::kThreads, 0, stream>>>(x, out, p.weight, p.eps, p.columns);
  }
  return cudaGetLastError();
}

CudaStatus LaunchSwiGlu(const CudaSwiGluParams& p, CudaStream stream) {
  const cuda::SwiGluBody body{p.gate, p.up, CudaConstRows(p.out)};
  const bool aligned = body.gate.Aligned() && body.up.Aligned() && body.out.Aligned();
  return cuda::LaunchElementwise(p.rows, p.columns, aligned, body, stream);
}

CudaStatus LaunchBiasAct(const CudaBiasActParams& p, CudaStream stream) {
  const cuda::BiasActBody body{p.x, CudaConstRows(p.out), p.bias, p.unary, p.accumulate};
  return cuda::LaunchElementwise(p.rows, p.columns, body.x.Aligned() && body.out.Aligned(), body,
                                 stream);
}

CudaStatus LaunchCopyRows(const CudaCopyRowsParams& p, CudaStream stream) {
  const cuda::CopyBody body{p.x, CudaConstRows(p.out), p.from, p.to};
  return cuda::LaunchElementwise(p.rows, p.columns, body.x.Aligned() && body.out.Aligned(), body,
                                 stream);
}

CudaStatus LaunchRopeAngles(const CudaRopeAnglesParams& p, CudaStream stream) {
  if (p.rows <= 0 || p.half <= 0) return cudaSuccess;
  cuda::RopeAnglesKernel<<<cuda::Ctas(p.rows * p.half), cuda::kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

CudaStatus LaunchRope(const CudaRopeParams& p, CudaStream stream) {
  if (p.head_dim % 4 != 0) return cudaErrorInvalidValue;
  if (p.rows <= 0 || p.num_heads <= 0) return cudaSuccess;
  const int64_t items = p.rows * p.num_heads * (p.head_dim / 4);
  cuda::RopeKernel<<<cuda::Ctas(items), cuda::kThreads, 0, stream>>>(CudaConstRows(p.x), p);
  return cudaGetLastError();
}

}  // namespace videonsa
