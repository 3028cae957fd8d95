#pragma once

#include <cstdint>

#include "runtime/device/tensor_view.h"

namespace videonsa {

/// Reads `count` elements from element `begin` on of a compact F32, BF16 or F16 tensor of any
/// alignment.
void LoadFloats(const TensorView& tensor, int64_t begin, int64_t count, float* out);

/// The float with the same value as the IEEE half-precision number `bits`.
float FromHalf(uint16_t bits);

}  // namespace videonsa
