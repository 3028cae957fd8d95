#include "kernels/attention/cuda_attention.h"
#include "kernels/attention/paged_rows.cuh"
#include "kernels/common/cuda_scratch.h"
#include "kernels/common/wide_tile.cuh"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kJoinThreads = 128;
constexpr int kSplitRows = 64;  // of one launch

int RunsOf(int len) { return (len + kDenseRunKeys - 1) / kDenseRunKeys; }

struct SplitPlan {
  float* partial = nullptr;
  float* lse2 = nullptr;
  size_t bytes = 0;

  static SplitPlan Of(int num_q_heads, int head_dim, int len, void* data) {
    SplitPlan plan;
    const size_t rows = size_t{kSplitRows} * static_cast<size_t>(RunsOf(len) * num_q_heads);
    CudaScratchCursor cursor(data);
    plan.partial = cursor.Take<float>(rows * static_cast<size_t>(head_dim));
    plan.lse2 = cursor.Take<float>(rows);
    plan.bytes = cursor.used();
    return plan;
  }
};

// A warp joins the runs of one row and head.
template <typename T>
__global__ void __launch_bounds__(kJoinThreads)
    JoinRunsKernel(const __grid_constant__ DenseRunPolicy<T> p, int heads_a_cta) {
  const int64_t token = blockIdx.x, rows = p.row_end - p.row_begin;
  const int head = static_cast<int>(blockIdx.y) * heads_a_cta + static_cast<int>(threadIdx.x / 32);
  if (head >= p.num_q_heads || !p.Alive(token)) return;
  const int runs = (p.row_begin + static_cast<int>(token)) / kDenseRunKeys + 1;
  const auto at = [&](int run) { return (run * rows + token) * p.num_q_heads + head; };
  float top = kMinusInf, total = 0;
  for (int run = 0; run < runs; ++run) top = fmaxf(top, p.lse2[at(run)]);
  for (int run = 0; run < runs; ++run) total += exp2f(p.lse2[at(run)] - top);
  for (int d = threadIdx.x % 32; d < p.head_dim; d += 32) {
    float sum = 0;
    for (int run = 0; run < runs; ++run) {
      sum = fmaf(exp2f(p.lse2[at(run)] - top), p.partial[at(run) * p.head_dim + d], sum);
    }
    StoreElement(p.out.data, p.out.is_bf16, token * p.out.stride + int64_t{head} * p.head_dim + d,
                 sum / total);
  }
}

template <typename T>
void FillDense(const CudaDensePrefillParams& p, DensePolicy<T>& policy) {
  FillPages(p.kv, policy);
  policy.q = DeviceRows(p.q);
  policy.out = DeviceRows(p.out);
  policy.skip = p.skip_rows;
  policy.row_begin = p.row_begin;
  policy.row_end = p.row_end;
  policy.num_q_heads = p.num_q_heads;
}

template <typename T>
cudaError_t LaunchWhole(const CudaDensePrefillParams& p, cudaStream_t stream) {
  DensePolicy<T> policy;
  FillDense(p, policy);
  return DispatchHeadDim(p.kv.head_dim, [&](auto dim) {
    return LaunchWideTiles<decltype(dim)::value, 2>(
        policy, p.scale, [&](int rows) { return policy.Grid(rows, p.kv.num_kv_heads); }, stream);
  });
}

// At most kSplitRows rows.
template <typename T>
cudaError_t LaunchRuns(const CudaDensePrefillParams& p, cudaStream_t stream) {
  const SplitPlan plan = SplitPlan::Of(p.num_q_heads, p.kv.head_dim, p.row_end, p.scratch.data);
  if (plan.bytes > p.scratch.bytes) return cudaErrorInvalidValue;
  DenseRunPolicy<T> policy;
  FillDense(p, policy);
  policy.run_tiles = kDenseRunKeys / kTileKeys;
  policy.partial = plan.partial;
  policy.lse2 = plan.lse2;
  const cudaError_t status = DispatchHeadDim(p.kv.head_dim, [&](auto dim) {
    const auto grid = [&](int rows) {
      dim3 runs = policy.Grid(rows, p.kv.num_kv_heads);
      runs.z = static_cast<unsigned>(RunsOf(p.row_end));
      return runs;
    };
    return LaunchWideTiles<decltype(dim)::value, 2>(policy, p.scale, grid, stream);
  });
  if (status != cudaSuccess) return status;
  constexpr int kHeads = kJoinThreads / 32;
  const dim3 grid(static_cast<unsigned>(p.row_end - p.row_begin),
                  static_cast<unsigned>((p.num_q_heads + kHeads - 1) / kHeads));
  JoinRunsKernel<T><<<grid, kJoinThreads, 0, stream>>>(policy, kHeads);
  return cudaGetLastError();
}

void* RowAt(const void* data, DType dtype, int64_t offset) {
  return const_cast<char*>(static_cast<const char*>(data)) +
         offset * static_cast<int>(SizeOf(dtype));
}

}  // namespace
}  // namespace cuda

size_t CudaDenseSplitScratchBytes(int num_q_heads, int head_dim, int max_len) {
  return cuda::SplitPlan::Of(num_q_heads, head_dim, max_len, nullptr).bytes;
}

CudaStatus LaunchDensePrefill(const CudaDensePrefillParams& p, CudaStream stream) {
  if (p.row_end <= p.row_begin) return cudaSuccess;
  if (!cuda::ShapeFits(p.kv, p.num_q_heads)) return cudaErrorInvalidValue;
  return cuda::DispatchElement(p.kv.dtype, [&](auto element) -> cudaError_t {
    using T = decltype(element);
    // One run is the whole: it gives the same bits.
    if (!p.split_keys || p.row_end <= kDenseRunKeys) return cuda::LaunchWhole<T>(p, stream);
    CudaDensePrefillParams part = p;
    for (int row = p.row_begin; row < p.row_end; row = part.row_end) {
      const int64_t first = row - p.row_begin;
      part.row_begin = row;
      part.row_end = std::min(p.row_end, row + cuda::kSplitRows);
      part.q.data = cuda::RowAt(p.q.data, p.q.dtype, first * p.q.row_stride);
      part.out.data = cuda::RowAt(p.out.data, p.out.dtype, first * p.out.row_stride);
      part.skip_rows = p.skip_rows == nullptr ? nullptr : p.skip_rows + first;
      const cudaError_t status = cuda::LaunchRuns<T>(part, stream);
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  });
}

}  // namespace videonsa
