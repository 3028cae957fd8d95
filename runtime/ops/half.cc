#include "runtime/ops/half.h"

#include <bit>
#include <cstring>

#include "kernels/common/bf16.h"
#include "runtime/base/check.h"

namespace videonsa {

float FromHalf(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = bits >> 10 & 0x1Fu;
  uint32_t fraction = bits & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  // Zero or subnormal: fraction * 2^-24.
  const float magnitude = static_cast<float>(fraction) * 0x1.0p-24f;
  return sign == 0 ? magnitude : -magnitude;
}

void LoadFloats(const TensorView& tensor, int64_t begin, int64_t count, float* out) {
  const char* from =
      static_cast<const char*>(tensor.data) + begin * static_cast<int64_t>(SizeOf(tensor.dtype));
  if (tensor.dtype == DType::kF32) {
    std::memcpy(out, from, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  VNSA_CHECK(tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16)
      << "dtype " << static_cast<int>(tensor.dtype);
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * i, 2);
    out[i] = tensor.dtype == DType::kBF16 ? FromBf16(bits) : FromHalf(bits);
  }
}

}  // namespace videonsa
