#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

/// Instructions of sm_80 and later that the attention kernels are made of.
namespace videonsa::cuda {

inline constexpr float kMinusInf = -INFINITY;
inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr unsigned kFullWarp = 0xFFFFFFFFu;

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Copies 16 bytes from global to shared memory; zeros instead if not `live`.
__device__ inline void CopyAsync16(void* shared, const void* global, bool live) {
  const int bytes = live ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(bytes));
}
/// The same for 4 bytes.
__device__ inline void CopyAsync4(void* shared, const void* global, bool live) {
  const int bytes = live ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(bytes));
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;\n" ::); }
/// Waits until at most kPending of the last groups are still on their way.
template <int kPending>
__device__ inline void WaitCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

/// Four 8 x 8 matrices of 16-bit elements; lane l names row l % 8 of matrix l / 8.
__device__ inline void LoadMatrix4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row)));
}
__device__ inline void LoadMatrix4Transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row)));
}

/// d += a b with a [16, 16] row major, b [16, 8] column major, bf16 in, fp32 out.
/// Lane l holds rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the next of d.
__device__ inline void MultiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// 2^x, flushing results below the normal range to 0.
__device__ inline float FastExp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ inline float LoadElement(const void* data, bool is_bf16, int64_t at) {
  return is_bf16 ? __bfloat162float(static_cast<const __nv_bfloat16*>(data)[at])
                 : static_cast<const float*>(data)[at];
}
__device__ inline void StoreElement(void* data, bool is_bf16, int64_t at, float x) {
  if (is_bf16) {
    static_cast<__nv_bfloat16*>(data)[at] = __float2bfloat16_rn(x);
  } else {
    static_cast<float*>(data)[at] = x;
  }
}

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }

/// Eight bf16 of a row that may be fp32; zeros if `data` is null.
__device__ inline uint4 LoadEightBf16(const void* data, bool is_bf16, int64_t at) {
  if (data == nullptr) return make_uint4(0, 0, 0, 0);
  if (is_bf16) return *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(data) + at);
  const float4* x = reinterpret_cast<const float4*>(static_cast<const float*>(data) + at);
  const float4 a = x[0], b = x[1];
  return make_uint4(PackBf16(a.x, a.y), PackBf16(a.z, a.w), PackBf16(b.x, b.y), PackBf16(b.z, b.w));
}

__device__ inline float WarpSum(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(kFullWarp, x, d);
  return x;
}
__device__ inline float WarpMax(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, d));
  return x;
}

}  // namespace videonsa::cuda
