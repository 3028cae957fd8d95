#pragma once

#include <cuda.h>  // types only: the driver is asked for its function
#include <cuda_runtime_api.h>

#include <cstdint>

/// Copies of whole tiles of 64 rows by the copy engine of Hopper: one thread asks for them, nobody
/// else has work with them, and they arrive with their pieces exchanged as wgmma.cuh wants them.
namespace videonsa::cuda {

/// Rows of bf16 from `base` on, one after the other, and as many as there may ever be: who copies
/// knows which of them exist.
struct TileMap {
  CUtensorMap map;
  const void* base = nullptr;
};
struct TileMaps {
  TileMap k;
  TileMap v;
};

/// Requires: base on a border of 16 bytes, kDim a multiple of 64.
template <int kDim>
cudaError_t MakeTileMap(const void* base, TileMap* map) {
  static_assert(kDim % 64 == 0, "a piece of a tile is 64 columns wide");
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t status = cudaGetDriverEntryPointByVersion(
        "cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    const bool ok = status == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return reinterpret_cast<Encode>(ok ? found : nullptr);
  }();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {kDim, uint64_t{1} << 31};
  const cuuint64_t strides[1] = {kDim * 2};
  const cuuint32_t box[2] = {64, 64}, steps[2] = {1, 1};
  map->base = base;
  const CUresult result =
      encode(&map->map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(base), sizes,
             strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

#ifdef VIDEONSA_WGMMA
/// Arrives at a barrier whose phase lasts until so many bytes have come too.
__device__ inline void ArriveExpecting(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes)
               : "memory");
}
/// Columns [column, column + 64) of rows [row, row + 64) go to shared memory; their bytes count at
/// the barrier.
__device__ inline void CopyTile(uint32_t to, const TileMap& map, int column, int row,
                                uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];\n" ::"r"(to),
      "l"(&map.map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
#endif  // VIDEONSA_WGMMA

}  // namespace videonsa::cuda
