#include "kernels/common/mma.cuh"
#include "kernels/elementwise/cuda_matvec.h"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPiece = 8;     // bf16 of one load
constexpr int kInFlight = 8;  // loads of weights that a lane has on their way

// Weights are read once: they do not stay in the first-level cache, where x does.
__device__ uint4 LoadOnce(const uint16_t* from) {
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(from));
  return x;
}

__device__ float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ float High(uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000u); }

__device__ float AddProducts(uint4 a, uint4 b, float sum) {
  const uint32_t x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(Low(x[i]), Low(y[i]), sum);
    sum = fmaf(High(x[i]), High(y[i]), sum);
  }
  return sum;
}

// A warp multiplies one row of the weights (and of the gate) by every row of x.
template <int kRows, bool kGated>
__global__ void __launch_bounds__(kThreads) MatVecKernel(CudaMatVecParams p) {
  constexpr int kMatrices = kGated ? 2 : 1;
  constexpr int kLoads = kInFlight / kMatrices;
  const int column = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x / 32);
  const int lane = threadIdx.x % 32;
  if (column >= p.n) return;
  const uint16_t* weights[2] = {static_cast<const uint16_t*>(p.w) + column * p.w_stride,
                                static_cast<const uint16_t*>(p.gate) + column * p.w_stride};
  const auto* x = static_cast<const uint16_t*>(p.x.data);
  const int pieces = p.k / kPiece;
  float sum[kMatrices][kRows] = {};
  for (int first = lane; first < pieces; first += 32 * kLoads) {
    uint4 w[kMatrices][kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int at = first + 32 * i;
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        w[m][i] = at < pieces ? LoadOnce(weights[m] + at * kPiece) : make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int at = first + 32 * i;
      if (at >= pieces) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const uint4 a = *reinterpret_cast<const uint4*>(x + r * p.x.row_stride + at * kPiece);
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) sum[m][r] = AddProducts(w[m][i], a, sum[m][r]);
      }
    }
  }
  const bool is_bf16 = p.out.dtype == DType::kBF16;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float result = WarpSum(sum[0][r]);
    if constexpr (kGated) {
      const float gate = WarpSum(sum[1][r]);
      result *= gate / (1.0f + __expf(-gate));
    }
    if (lane != 0) continue;
    const int64_t at = r * p.out.row_stride + column;
    if (p.bias != nullptr) result += LoadElement(p.bias, is_bf16, column);
    if (p.accumulate) result += LoadElement(p.out.data, is_bf16, at);
    StoreElement(p.out.data, is_bf16, at, result);
  }
}

template <bool kGated>
cudaError_t LaunchRows(const CudaMatVecParams& p, cudaStream_t stream) {
  const auto ctas = static_cast<unsigned>((p.n + kWarps - 1) / kWarps);
  switch (p.rows) {
    case 1:
      MatVecKernel<1, kGated><<<ctas, kThreads, 0, stream>>>(p);
      break;
    case 2:
      MatVecKernel<2, kGated><<<ctas, kThreads, 0, stream>>>(p);
      break;
    case 3:
      MatVecKernel<3, kGated><<<ctas, kThreads, 0, stream>>>(p);
      break;
    default:
      MatVecKernel<4, kGated><<<ctas, kThreads, 0, stream>>>(p);
  }
  return cudaGetLastError();
}

bool OnBorder(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace
}  // namespace cuda

CudaStatus LaunchMatVec(const CudaMatVecParams& p, CudaStream stream) {
  if (p.rows <= 0 || p.n <= 0) return cudaSuccess;
  if (p.rows > kMaxMatVecRows || p.k % 8 != 0 || p.w_stride % 8 != 0 || p.x.row_stride % 8 != 0 ||
      p.x.dtype != DType::kBF16 || !cuda::OnBorder(p.w) || !cuda::OnBorder(p.gate) ||
      !cuda::OnBorder(p.x.data)) {
    return cudaErrorInvalidValue;
  }
  return p.gate != nullptr ? cuda::LaunchRows<true>(p, stream) : cuda::LaunchRows<false>(p, stream);
}

}  // namespace videonsa
