#include "kernels/common/attention_tile.cuh"
#include "kernels/vision/cuda_vision.h"

namespace videonsa {
namespace cuda {
namespace {

struct SegmentCta {
  int head = 0;
  int row = 0;  ///< first row of the CTA
  int num_rows = 0;
  int begin = 0;  ///< first row of the segment
  int end = 0;
  int steps = 0;
};

// Rows of one head inside one segment; every row sees the whole segment.
// Grid: x tiles of the longest segment, y segments, z heads.
template <typename T>
struct SegmentPolicy {
  using Element = T;
  using Cta = SegmentCta;

  const T* qkv = nullptr;
  int64_t stride = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
  bool out_bf16 = false;
  const int32_t* segments = nullptr;
  int num_segments = 0;
  int num_heads = 0;
  int head_dim = 0;

  template <int kRows>
  __device__ bool Begin(Cta& cta, char*, char*) const {
    cta.head = blockIdx.z;
    cta.begin = segments[blockIdx.y];
    cta.end = segments[blockIdx.y + 1];
    cta.row = cta.begin + static_cast<int>(blockIdx.x) * kRows;
    cta.num_rows = min(kRows, cta.end - cta.row);
    cta.steps = (cta.end - cta.begin + kTileKeys - 1) / kTileKeys;
    return cta.num_rows > 0;
  }
  __device__ int steps(const Cta& cta) const { return cta.steps; }
  __device__ int Position(const Cta& cta, int row) const { return row < cta.num_rows ? 0 : -1; }
  __device__ Query QueryOf(const Cta& cta, int row) const {
    Query query;
    if (row >= cta.num_rows) return query;
    query.data = qkv;
    query.is_bf16 = sizeof(T) == 2;
    query.offset = (cta.row + row) * stride + int64_t{cta.head} * head_dim;
    return query;
  }
  __device__ KeyTile<T> Tile(const Cta& cta, int step) const {
    KeyTile<T> tile;
    const int64_t first = cta.begin + step * kTileKeys;
    tile.k = qkv + first * stride + int64_t{num_heads + cta.head} * head_dim;
    tile.v = tile.k + int64_t{num_heads} * head_dim;
    tile.row_stride = stride;
    tile.live = min(kTileKeys, cta.end - static_cast<int>(first));
    return tile;
  }
  __device__ KeyRange Range(const Cta&, const KeyTile<T>& tile, int, int, int) const {
    return {0, tile.live};
  }
  __device__ RowOutput OutputOf(const Cta& cta, int row) const {
    RowOutput to;
    to.data = out;
    to.is_bf16 = out_bf16;
    to.offset = (cta.row + row) * out_stride + int64_t{cta.head} * head_dim;
    return to;
  }
};

template <typename T>
cudaError_t Launch(const CudaVisionAttentionParams& p, cudaStream_t stream) {
  SegmentPolicy<T> policy;
  policy.qkv = static_cast<const T*>(p.qkv.data);
  policy.stride = p.qkv.row_stride;
  policy.out = p.out.data;
  policy.out_stride = p.out.row_stride;
  policy.out_bf16 = p.out.dtype == DType::kBF16;
  policy.segments = p.segments;
  policy.num_segments = p.num_segments;
  policy.num_heads = p.num_heads;
  policy.head_dim = p.head_dim;
  const auto grid = [&](int rows) {
    return dim3(static_cast<unsigned>((p.max_segment_rows + rows - 1) / rows),
                static_cast<unsigned>(p.num_segments), static_cast<unsigned>(p.num_heads));
  };
  return DispatchHeadDim(p.head_dim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    // Windows have 64 rows; long segments amortise keys over 128.
    if (p.max_segment_rows <= kTileKeys) {
      return LaunchTiles<kDim, 1>(policy, p.scale, {}, grid, stream);
    }
    return LaunchTiles<kDim, 2>(policy, p.scale, {}, grid, stream);
  });
}

}  // namespace
}  // namespace cuda

CudaStatus LaunchVisionAttention(const CudaVisionAttentionParams& p, CudaStream stream) {
  // Segments are the grid's second dimension, which has 65535 places.
  constexpr int kMost = 65535;
  for (int first = 0; first < p.num_segments; first += kMost) {
    CudaVisionAttentionParams part = p;
    part.segments = p.segments + first;
    part.num_segments = std::min(kMost, p.num_segments - first);
    const CudaStatus status = p.qkv.dtype == DType::kBF16
                                  ? cuda::Launch<__nv_bfloat16>(part, stream)
                                  : cuda::Launch<float>(part, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace videonsa
