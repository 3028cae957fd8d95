#pragma once

#include <bit>
#include <cstdint>

namespace videonsa {

/// Rounds to the nearest bfloat16, ties to even; NaN stays NaN. Returns the 16 bits.
constexpr uint16_t RoundToBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/// The float with the same value as the bfloat16 `bits`.
constexpr float FromBf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

}  // namespace videonsa
