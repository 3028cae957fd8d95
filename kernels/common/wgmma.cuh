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

/// Copies the 64 keys (or values, `from`) of a KeyTile, kPieces pieces each, into such tiles,
/// `column_tile` bytes from one to the next; 128 threads call. Keys that are not live become zeros.
template <int kPieces, typename Tile>
__device__ inline void CopyRowsAsync(const Tile& tile, const void* from, char* to,
                                     uint32_t column_tile) {
  constexpr int kRows = 64, kAtOnce = 128 / kPieces;
  static_assert(kAtOnce % 8 == 0, "the exchange of pieces repeats every eight rows");
  const int first = static_cast<int>(threadIdx.x) % 128 / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  const char* source = static_cast<const char*>(from) + first * tile.row_stride * 2 + piece * 16;
  const int64_t step = kAtOnce * tile.row_stride * 2;
  to += piece / 8 * column_tile + SwizzledOffset(first, piece % 8);
  const bool whole = tile.live >= kRows && tile.keep == nullptr;
#pragma unroll 4
  for (int row = first; row < kRows; row += kAtOnce) {
    const bool live = whole || (row < tile.live && (tile.keep == nullptr || tile.keep[row] != 0));
    CopyAsync16(to, source, live);
    to += kAtOnce * 128;
    source += step;
  }
}

#ifdef VIDEONSA_WGMMA
/// Barriers in shared memory, 8 bytes each: a phase ends when `count` arrivals have come.
__device__ inline void InitBarrier(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(count) : "memory");
}
__device__ inline void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
/// Arrives once the thread's copies so far are there.
__device__ inline void ArriveAfterCopies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(barrier) : "memory");
}
/// Waits until the phase of this parity has ended.
__device__ inline void WaitBarrier(uint32_t barrier, int parity) {
  uint32_t ended;
  do {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(ended)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (ended == 0);
}

/// Registers a thread of this warpgroup may use from here on.
template <int kCount>
__device__ inline void GiveUpRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCount));
}
template <int kCount>
__device__ inline void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kCount));
}

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
/// The same with a in shared memory too.
__device__ inline void MultiplyTiles(float (&d)[8][4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
      "%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, p, 1, 1, 0, 0;\n}\n"
      : VIDEONSA_SIXTEEN(d, 0), VIDEONSA_SIXTEEN(d, 4)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
/// d = a b with a in registers and b [16, 128].
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
