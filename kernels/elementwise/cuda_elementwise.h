#pragma once

#include "kernels/common/cuda_launch.h"

/// Row-wise kernels on CUDA. All arithmetic is fp32; BF16 results are rounded to nearest even.
namespace videonsa {

/// out = x * rsqrt(mean(x^2) + eps) * weight, row by row.
///
/// Shapes: x, out [rows, columns] F32 or BF16; weight [columns] fp32
struct CudaRmsNormParams {
  CudaConstRows x;
  CudaRows out;
  const float* weight = nullptr;
  float eps = 0;
  int64_t rows = 0;
  int columns = 0;
};
[[nodiscard]] CudaStatus LaunchRmsNorm(const CudaRmsNormParams& params, CudaStream stream);

/// out = silu(gate) * up.
///
/// Shapes: gate, up, out [rows, columns] F32 or BF16; out may be gate or up
struct CudaSwiGluParams {
  CudaConstRows gate;
  CudaConstRows up;
  CudaRows out;
  int64_t rows = 0;
  int columns = 0;
};
[[nodiscard]] CudaStatus LaunchSwiGlu(const CudaSwiGluParams& params, CudaStream stream);

enum class CudaUnary : uint8_t {
  kIdentity,
  kGelu,  ///< x/2 (1 + erf(x / sqrt 2))
  kSilu,  ///< x / (1 + e^-x)
};

/// out = f(x + bias) (+ out if `accumulate`): bias, activation and type conversion.
///
/// Shapes: x, out [rows, columns] F32 or BF16, out may be x; bias [columns] fp32 or null
struct CudaBiasActParams {
  CudaConstRows x;
  CudaRows out;
  const float* bias = nullptr;
  CudaUnary unary = CudaUnary::kIdentity;
  bool accumulate = false;
  int64_t rows = 0;
  int columns = 0;
};
[[nodiscard]] CudaStatus LaunchBiasAct(const CudaBiasActParams& params, CudaStream stream);

/// out[r] = x[from[r]] for every r, or out[to[r]] = x[r] with `to`: embedding gather, row copy,
/// conversion, vision scatter. With neither: a plain copy.
///
/// Shapes: x, out [*, columns] F32 or BF16; from, to [rows] int32 or null; a negative index leaves
///         the row of `out` as it is
struct CudaCopyRowsParams {
  CudaConstRows x;
  CudaRows out;
  const int32_t* from = nullptr;
  const int32_t* to = nullptr;
  int64_t rows = 0;
  int columns = 0;
};
[[nodiscard]] CudaStatus LaunchCopyRows(const CudaCopyRowsParams& params, CudaStream stream);

/// cos and sin of frequency * coordinate, the product rounded to fp32 first.
///
/// Shapes: positions[axis] [rows] int32; frequencies [half] fp32; axes [half] int32 in 0..2;
///         cos, sin [rows, half] fp32 compact
struct CudaRopeAnglesParams {
  const int32_t* positions[3] = {};
  const float* frequencies = nullptr;
  const int32_t* axes = nullptr;
  float* cos = nullptr;
  float* sin = nullptr;
  int64_t rows = 0;
  int half = 0;
};
[[nodiscard]] CudaStatus LaunchRopeAngles(const CudaRopeAnglesParams& params, CudaStream stream);

/// Rotates the first num_heads heads of every row in place: for d < head_dim / 2,
/// (x[d], x[d + half]) becomes (x[d] cos - x[d + half] sin, x[d + half] cos + x[d] sin).
///
/// Shapes: x [rows, >= num_heads * head_dim] F32 or BF16; cos, sin [*, head_dim / 2] fp32 compact;
///         order [rows] int32 or null: row r takes table row order[r]
/// Requires: head_dim a multiple of 4.
struct CudaRopeParams {
  CudaRows x;
  const float* cos = nullptr;
  const float* sin = nullptr;
  const int32_t* order = nullptr;
  int64_t rows = 0;
  int num_heads = 0;
  int head_dim = 0;
};
[[nodiscard]] CudaStatus LaunchRope(const CudaRopeParams& params, CudaStream stream);

}  // namespace videonsa
