#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#include "kernels/cpu/gemm.h"

namespace videonsa {

/// A finished product on its way out of the cache.
///
/// Shapes: tile [rows, columns] fp32 compact; bias [columns] or null; out [rows, columns] of
///         out_dtype, row stride out_stride
struct TileOutput {
  const float* tile = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  const float* bias = nullptr;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
  void* out = nullptr;
  DType out_dtype = DType::kF32;
  int64_t out_stride = 0;
};

/// Applies bias and epilogue and stores. Numerics: GELU by the exact erf form, error below 1e-6.
void FinishTile(const TileOutput& output);

/// As TileOutput for silu(gate + gate_bias) * (up + up_bias).
struct SwiGluOutput {
  const float* gate = nullptr;
  const float* up = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  void* out = nullptr;
  DType out_dtype = DType::kF32;
  int64_t out_stride = 0;
};

void FinishSwiGlu(const SwiGluOutput& output);

}  // namespace videonsa
