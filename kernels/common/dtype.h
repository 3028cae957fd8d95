#pragma once

#include <cstddef>
#include <cstdint>

namespace videonsa {

/// Element types of tensors in memory and in files.
enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI64, kU8 };

constexpr size_t SizeOf(DType type) {
  switch (type) {
    case DType::kF32:
      return 4;
    case DType::kBF16:
      return 2;
    case DType::kF16:
      return 2;
    case DType::kI32:
      return 4;
    case DType::kI64:
      return 8;
    case DType::kU8:
      return 1;
  }
  return 0;
}

}  // namespace videonsa
