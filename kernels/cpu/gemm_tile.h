#pragma once

#include <cstdint>

namespace videonsa {

/// A tile of a product with packed F32 weights, on one thread.
///
/// Shapes: x [rows, k] row stride x_stride; panels: whole panels of PackedMatrix, padded_k rows
///         each; out [rows, columns] compact, overwritten
struct TileProduct {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t rows = 0;
  const float* panels = nullptr;
  int64_t k = 0;
  int64_t padded_k = 0;
  int64_t columns = 0;
  float* out = nullptr;
};

/// Multiplies a tile. Every output element is one chain of fused multiply-adds over k in order.
void MultiplyTile(const TileProduct& product);

}  // namespace videonsa
