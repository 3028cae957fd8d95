#pragma once

#include "kernels/common/cuda_launch.h"

namespace videonsa {

/// Rows of x that one product takes: decode of few sequences.
inline constexpr int kMaxMatVecRows = 4;

/// out = x w^T (+ bias) (+ out if `accumulate`) for a few rows of x: the weights are read once, at
/// the speed of memory. With `gate`: out = silu(x gate^T) * (x w^T), no bias, not accumulated.
///
/// Shapes: w, gate [n, k] BF16, rows `w_stride` apart; x [rows, k] BF16; out [rows, n] F32 or BF16;
///         bias [n] of out's type or null
/// Requires: rows <= kMaxMatVecRows; k and the strides of w and x multiples of 8 elements; w, gate
///           and x on 16-byte borders; out does not overlap x.
/// A row's result does not depend on the other rows (bitwise).
struct CudaMatVecParams {
  const void* w = nullptr;
  const void* gate = nullptr;
  int64_t w_stride = 0;
  CudaConstRows x;
  CudaRows out;
  const void* bias = nullptr;
  bool accumulate = false;
  int rows = 0;
  int n = 0;
  int k = 0;
};
[[nodiscard]] CudaStatus LaunchMatVec(const CudaMatVecParams& params, CudaStream stream);

}  // namespace videonsa
