#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/dtype.h"

namespace videonsa {

/// Weights of a linear layer in the order in which the multiplication reads them.
///
/// Output features are cut into panels of 64. A panel is [k / step][64][step] with step 1 for F32
/// and 2 for BF16 (pairs along the input axis), the input axis padded with zeros to 16 * step, the
/// last panel padded with zero features. Any run of whole panels is itself a packed matrix.
///
/// Shapes: the logical matrix is [n output features, k input features].
struct PackedMatrix {
  static constexpr int64_t kPanel = 64;

  DType dtype = DType::kF32;  ///< F32 or BF16
  int64_t n = 0;
  int64_t k = 0;
  void* data = nullptr;  ///< PackedBytes(dtype, n, k) bytes, 64-byte aligned

  int64_t padded_k() const {
    const int64_t step = dtype == DType::kBF16 ? 32 : 16;
    return (k + step - 1) / step * step;
  }
  int64_t num_panels() const { return (n + kPanel - 1) / kPanel; }
  int64_t panel_bytes() const { return kPanel * padded_k() * static_cast<int64_t>(SizeOf(dtype)); }
  void* panel(int64_t index) const { return static_cast<char*>(data) + index * panel_bytes(); }
};

/// Bytes of a packed matrix.
int64_t PackedBytes(DType dtype, int64_t n, int64_t k);

/// Writes output feature `row` from its k input weights. BF16 rounds to nearest even.
void PackRow(const PackedMatrix& matrix, int64_t row, const float* weights);

/// Reads output feature `row` back as floats.
void UnpackRow(const PackedMatrix& matrix, int64_t row, float* weights);

}  // namespace videonsa
