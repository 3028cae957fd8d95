#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"

namespace videonsa {

/// out = x * rsqrt(mean(x^2) + eps) * weight, row by row, on one thread.
///
/// Shapes:   x [rows, columns] fp32; weight [columns] fp32; out [rows, columns] F32 or BF16
/// Units:    strides in elements.
/// Numerics: fp32; the sum of squares runs over fixed lanes, so a row's result depends on the row
///           alone.
struct RmsNormParams {
  const float* x = nullptr;
  int64_t x_stride = 0;
  const float* weight = nullptr;
  float eps = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  void* out = nullptr;
  DType out_dtype = DType::kF32;
  int64_t out_stride = 0;
};

void RmsNorm(const RmsNormParams& params);

/// Copies fp32 rows into F32 or BF16 rows (nearest even), on one thread.
///
/// Shapes: x, out [rows, columns]; order [rows] or null: row r is read from row order[r]
struct ConvertParams {
  const float* x = nullptr;
  int64_t x_stride = 0;
  const int32_t* order = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  void* out = nullptr;
  DType out_dtype = DType::kF32;
  int64_t out_stride = 0;
};

void ConvertRows(const ConvertParams& params);

}  // namespace videonsa
