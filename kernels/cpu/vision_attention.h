#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/dtype.h"
#include "kernels/common/thread_pool.h"

namespace videonsa {

/// Bidirectional attention inside segments of consecutive rows.
///
/// Shapes:   qkv [num_rows, 3, num_heads, head_dim] fp32, q and k already rotated
///           segments [num_segments + 1] first row of each segment, ascending, the last is num_rows
///           out [num_rows, num_heads * head_dim] F32 or BF16
/// Units:    strides in elements.
/// Requires: head_dim a multiple of 16, at most 256.
/// Numerics: fp32 softmax and sums. `bf16_products` rounds q, k, v and the weights to bf16.
struct VisionAttentionParams {
  const float* qkv = nullptr;
  int64_t qkv_stride = 0;
  const int32_t* segments = nullptr;
  int num_segments = 0;
  int num_heads = 0;
  int head_dim = 0;
  float scale = 0;
  bool bf16_products = false;
  void* out = nullptr;
  DType out_dtype = DType::kF32;
  int64_t out_stride = 0;
};

/// Bytes that VisionAttention needs for segments of at most `max_segment` rows.
size_t VisionAttentionScratchBytes(int num_threads, int max_segment, int head_dim);

/// Tasks are (segment, head) pairs: K and V of a pair are arranged once and used by all its rows.
/// A row's result depends on its segment alone. `scratch` is 64-byte aligned.
void VisionAttention(const VisionAttentionParams& params, void* scratch, ThreadPool& pool);

}  // namespace videonsa
