#include "kernels/cpu/packed_matrix.h"

#include "kernels/common/bf16.h"

namespace videonsa {

int64_t PackedBytes(DType dtype, int64_t n, int64_t k) {
  const PackedMatrix matrix{dtype, n, k, nullptr};
  return matrix.num_panels() * matrix.panel_bytes();
}

void PackRow(const PackedMatrix& matrix, int64_t row, const float* weights) {
  void* panel = matrix.panel(row / PackedMatrix::kPanel);
  const int64_t column = row % PackedMatrix::kPanel;
  if (matrix.dtype == DType::kF32) {
    float* to = static_cast<float*>(panel) + column;
    for (int64_t k = 0; k < matrix.k; ++k) to[k * PackedMatrix::kPanel] = weights[k];
    return;
  }
  uint16_t* to = static_cast<uint16_t*>(panel) + 2 * column;
  for (int64_t k = 0; k < matrix.k; ++k) {
    to[(k / 2) * 2 * PackedMatrix::kPanel + k % 2] = RoundToBf16(weights[k]);
  }
}

void UnpackRow(const PackedMatrix& matrix, int64_t row, float* weights) {
  const void* panel = matrix.panel(row / PackedMatrix::kPanel);
  const int64_t column = row % PackedMatrix::kPanel;
  if (matrix.dtype == DType::kF32) {
    const float* from = static_cast<const float*>(panel) + column;
    for (int64_t k = 0; k < matrix.k; ++k) weights[k] = from[k * PackedMatrix::kPanel];
    return;
  }
  const uint16_t* from = static_cast<const uint16_t*>(panel) + 2 * column;
  for (int64_t k = 0; k < matrix.k; ++k) {
    weights[k] = FromBf16(from[(k / 2) * 2 * PackedMatrix::kPanel + k % 2]);
  }
}

}  // namespace videonsa
