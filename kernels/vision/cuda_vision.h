#pragma once

#include "kernels/common/cuda_launch.h"

namespace videonsa {

/// Bidirectional attention of the vision tower inside segments of consecutive rows, on CUDA.
///
/// Shapes:   qkv [num_rows, 3, num_heads, head_dim], q and k already rotated; out [num_rows,
///           num_heads * head_dim] F32 or BF16; segments [num_segments + 1] int32 on the device:
///           first row of each segment, ascending, the last is num_rows
/// Units:    max_segment_rows: no segment is longer; it sizes the launch and nothing else.
/// Requires: head_dim 16, 32, 64, 80 or 128; rows on 16-byte borders.
/// Numerics: BF16 qkv: products on the tensor cores, sums and softmax fp32. F32 qkv: all fp32.
/// A row's result depends on its segment alone.
struct CudaVisionAttentionParams {
  CudaConstRows qkv;
  CudaRows out;
  const int32_t* segments = nullptr;
  int num_segments = 0;
  int max_segment_rows = 0;
  int num_heads = 0;
  int head_dim = 0;
  float scale = 0;
};
[[nodiscard]] CudaStatus LaunchVisionAttention(const CudaVisionAttentionParams& params,
                                               CudaStream stream);

}  // namespace videonsa
