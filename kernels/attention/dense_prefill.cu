#include "kernels/attention/cuda_attention.h"
#include "kernels/attention/paged_rows.cuh"
#include "kernels/common/wide_tile.cuh"

namespace videonsa {

CudaStatus LaunchDensePrefill(const CudaDensePrefillParams& p, CudaStream stream) {
  if (p.row_end <= p.row_begin) return cudaSuccess;
  if (!cuda::ShapeFits(p.kv, p.num_q_heads)) return cudaErrorInvalidValue;
  return cuda::DispatchElement(p.kv.dtype, [&](auto element) {
    cuda::DensePolicy<decltype(element)> policy;
    cuda::FillPages(p.kv, policy);
    policy.q = cuda::DeviceRows(p.q);
    policy.out = cuda::DeviceRows(p.out);
    policy.skip = p.skip_rows;
    policy.row_begin = p.row_begin;
    policy.row_end = p.row_end;
    policy.num_q_heads = p.num_q_heads;
    return cuda::DispatchHeadDim(p.kv.head_dim, [&](auto dim) {
      return cuda::LaunchWideTiles<decltype(dim)::value, 2>(
          policy, p.scale, [&](int rows) { return policy.Grid(rows, p.kv.num_kv_heads); }, stream);
    });
  });
}

}  // namespace videonsa
