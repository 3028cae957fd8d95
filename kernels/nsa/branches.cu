#include "kernels/common/wide_tile.cuh"
#include "kernels/nsa/nsa_stages.cuh"

namespace videonsa::cuda {
namespace {

constexpr int kMeanThreads = 128;

// CTA: one block of one KV head.
template <typename T>
__global__ void __launch_bounds__(kMeanThreads) BlockMeansKernel(BlockMeans<T> m) {
  const int block = blockIdx.x, kv_head = blockIdx.y, head_dim = m.kv.head_dim;
  const int first = block * kTileKeys, keys = min(kTileKeys, m.len - first);
  const int64_t to = (int64_t{kv_head} * m.blocks_stride + block) * head_dim;
  const int64_t page = first < m.len ? m.kv.page_ids[block] : 0;
  const int64_t tile = page * m.kv.num_kv_heads + kv_head;
  for (int d = threadIdx.x; d < 2 * head_dim; d += kMeanThreads) {
    const bool is_key = d < head_dim;
    const int column = is_key ? d : d - head_dim;
    float mean = 0;
    if (m.keep == nullptr) {
      const float* pooled = is_key ? m.kv.k_pooled : m.kv.v_pooled;
      if (keys == kTileKeys) mean = pooled[tile * head_dim + column];
    } else if (keys > 0) {
      const T* from = static_cast<const T*>(is_key ? m.kv.k_pages : m.kv.v_pages) +
                      tile * kTileKeys * head_dim + column;
      for (int key = 0; key < keys; ++key) {
        if (m.keep[first + key]) mean += ToFloat(from[key * head_dim]);
      }
      mean /= static_cast<float>(keys);
    }
    (is_key ? m.k : m.v)[to + column] = static_cast<T>(mean);
  }
}

__global__ void __launch_bounds__(256)
    GateSumsKernel(const float* gates, int64_t stride, const uint8_t* is_vision, int rows,
                   int num_heads, unsigned long long* sums) {
  const int branch = blockIdx.y;
  unsigned long long sum = 0;
  for (int i = blockIdx.x * 256 + threadIdx.x; i < rows * num_heads; i += gridDim.x * 256) {
    const int row = i / num_heads;
    if (!is_vision[row]) continue;
    const float g = gates[row * stride + (i % num_heads) * 3 + branch];
    const double gate = 1.0f / (1.0f + expf(-g / 0.3f));
    sum += static_cast<unsigned long long>(gate * (1ull << kCudaTallyShift));
  }
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(kFullWarp, sum, d);
  if (threadIdx.x % 32 == 0) atomicAdd(&sums[branch], sum);
}

}  // namespace

cudaError_t LaunchTextRows(const CudaDensePrefillParams& dense, const CudaRowRange* text,
                           int num_text, cudaStream_t stream) {
  const int rows = dense.row_end - dense.row_begin;
  const CudaRowRange all = {0, rows};
  if (text == nullptr) text = &all, num_text = 1;
  for (int i = 0; i < num_text; ++i) {
    const int64_t begin = text[i].begin;
    CudaDensePrefillParams part = dense;
    part.split_keys = true;
    part.q.data = static_cast<const char*>(dense.q.data) +
                  begin * dense.q.row_stride * static_cast<int>(SizeOf(dense.q.dtype));
    part.out.data = static_cast<char*>(dense.out.data) +
                    begin * dense.out.row_stride * static_cast<int>(SizeOf(dense.out.dtype));
    part.skip_rows = dense.skip_rows + begin;
    part.row_begin = dense.row_begin + text[i].begin;
    part.row_end = dense.row_begin + text[i].end;
    const auto status = static_cast<cudaError_t>(LaunchDensePrefill(part, stream));
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

template <typename T>
cudaError_t LaunchBlockMeans(const BlockMeans<T>& means, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(means.blocks_stride),
                  static_cast<unsigned>(means.kv.num_kv_heads));
  BlockMeansKernel<T><<<grid, kMeanThreads, 0, stream>>>(means);
  return cudaGetLastError();
}

template <typename T>
cudaError_t LaunchCompressed(const CompressedPolicy<T>& policy, int num_kv, float scale,
                             cudaStream_t stream) {
  return DispatchHeadDim(policy.head_dim, [&](auto dim) {
    return LaunchWideTiles<decltype(dim)::value, 2>(
        policy, scale, [&](int rows) { return policy.Grid(rows, num_kv); }, stream);
  });
}

template <typename T>
cudaError_t LaunchWindow(const WindowPolicy<T>& policy, int num_kv, float scale,
                         cudaStream_t stream) {
  return DispatchHeadDim(policy.head_dim, [&](auto dim) {
    return LaunchWideTiles<decltype(dim)::value, 1>(
        policy, scale, [&](int rows) { return policy.Grid(rows, num_kv); }, stream);
  });
}

template <typename T>
cudaError_t LaunchSelected(const SelectedPolicy<T>& policy, int num_kv, float scale,
                           cudaStream_t stream) {
  return DispatchHeadDim(policy.head_dim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    constexpr bool kExact = sizeof(T) == 4;
    constexpr int kRows = kExact ? kExactRows : TileLayout<kDim, 2>::kRows;
    int group = policy.Group(policy.kv_first);
    for (int i = 1; i < num_kv; ++i) {
      group = std::min(group, policy.Group(policy.kv_first + i * policy.kv_step));
    }
    return LaunchTiles<kDim, 2>(
        policy, scale, policy.Shared(kRows, group),
        [&](int rows) { return policy.Grid(rows, num_kv); }, stream);
  });
}

cudaError_t LaunchGateSums(const float* gates, int64_t stride, const uint8_t* is_vision, int rows,
                           int num_heads, unsigned long long* sums, cudaStream_t stream) {
  const auto ctas = static_cast<unsigned>(std::min(256, (rows * num_heads + 255) / 256));
  GateSumsKernel<<<dim3(ctas, 3), 256, 0, stream>>>(gates, stride, is_vision, rows, num_heads,
                                                    sums);
  return cudaGetLastError();
}

#define VIDEONSA_INSTANTIATE(T)                                                                \
  template cudaError_t LaunchBlockMeans(const BlockMeans<T>&, cudaStream_t);                   \
  template cudaError_t LaunchCompressed(const CompressedPolicy<T>&, int, float, cudaStream_t); \
  template cudaError_t LaunchSelected(const SelectedPolicy<T>&, int, float, cudaStream_t);     \
  template cudaError_t LaunchWindow(const WindowPolicy<T>&, int, float, cudaStream_t);
VIDEONSA_INSTANTIATE(float)
VIDEONSA_INSTANTIATE(__nv_bfloat16)
#undef VIDEONSA_INSTANTIATE

}  // namespace videonsa::cuda
