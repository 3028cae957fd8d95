#pragma once

#include "kernels/common/mma.cuh"

/// Instructions of sm_90a by which a warpgroup (four warps) multiplies tiles in shared memory. They
/// run beside the threads that asked for them: registers handed over must be left alone until a
/// wait, and shared memory that threads wrote needs FenceShared before them.
namespace videonsa::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define VIDEONSA_WGMMA 1
#endif

/// Tiles of bf16 lie as rows of 128 bytes (64 elements) whose eight 16-byte pieces are exchanged:
/// piece p of row r is at p ^ (r % 8). Wider rows are cut into such tiles one behind the other.
/// Tiles begin on borders of 1024 bytes.
constexpr int SwizzledOffset(int row, int piece) { return row * 128 + ((piece ^ row % 8) * 16); }

__device__ inline uint64_t TileDescriptor(uint32_t address, uint32_t leading, uint32_t stride) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return kSwizzle128 | uint64_t{(address & 0x3FFFF) >> 4} | uint64_t{leading >> 4} << 16 |
         uint64_t{stride >> 4} << 32;
}

/// Makes what threads (and their copies) wrote to shared memory visible to products.
__device__ inline void FenceShared() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

#ifdef VIDEONSA_WGMMA
/// Before the first product that uses registers written since the last wait.
__device__ inline void FenceProducts() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int kPending>
__device__ inline void WaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

/// Keeps the compiler from moving uses of results across the wait before this.
template <int kTiles>
__device__ inline void AfterWait(float (&d)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(d[n][i])::"memory");
  }
}

#define VIDEONSA_FOUR(d, n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define VIDEONSA_SIXTEEN(d, n) \
  VIDEONSA_FOUR(d, n), VIDEONSA_FOUR(d, n + 1), VIDEONSA_FOUR(d, n + 2), VIDEONSA_FOUR(d, n + 3)

/// d = a b (+ d if `add`): a [64, 16] in registers (a warp has 16 rows, as mma's A operand), b
/// [16, 64] from shared memory; kRowsOfB: b's rows lie along the tile's rows, else its columns do.
/// d as of mma: tile n of eight columns, rows l / 4 and l / 4 + 8.
template <bool kRowsOfB>
__device__ inline void MultiplyTile(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b,
                                    bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
      "%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, %38;\n}\n"
      : VIDEONSA_SIXTEEN(d, 0), VIDEONSA_SIXTEEN(d, 4)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(kRowsOfB ? 1 : 0));
}
/// The same with b [16, 128].
template <bool kRowsOfB>
__device__ inline void MultiplyTile(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b,
                                    bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
      "%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,"
      "%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
      "{%64,%65,%66,%67}, %68, p, 1, 1, %70;\n}\n"
      : VIDEONSA_SIXTEEN(d, 0), VIDEONSA_SIXTEEN(d, 4), VIDEONSA_SIXTEEN(d, 8),
        VIDEONSA_SIXTEEN(d, 12)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(kRowsOfB ? 1 : 0));
}
#undef VIDEONSA_SIXTEEN
#undef VIDEONSA_FOUR
#endif  // VIDEONSA_WGMMA

}  // namespace videonsa::cuda
