#pragma once

#include <cstdint>

namespace videonsa {

/// Rotates heads in place, on one thread: for d < head_dim / 2,
/// (x[d], x[d + half]) becomes (x[d] cos - x[d + half] sin, x[d + half] cos + x[d] sin).
///
/// Shapes: x [rows, num_heads, head_dim] fp32, row stride x_stride; cos, sin [rows, head_dim / 2]
///         compact; order [rows] or null: row r takes table row order[r]
/// Requires: head_dim a multiple of 16.
struct RopeParams {
  float* x = nullptr;
  int64_t x_stride = 0;
  const float* cos = nullptr;
  const float* sin = nullptr;
  const int32_t* order = nullptr;
  int64_t rows = 0;
  int num_heads = 0;
  int head_dim = 0;
};

void Rope(const RopeParams& params);

}  // namespace videonsa
