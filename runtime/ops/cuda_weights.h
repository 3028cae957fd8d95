#pragma once

#include <utility>

#include "runtime/ops/backend.h"

namespace videonsa {

/// A linear layer on a GPU: [out, in] row-major of the compute type, rows on 256-byte borders or
/// packed, and the bias in both types that a product may add.
class CudaLinearWeights : public LinearWeights {
 public:
  CudaLinearWeights(int64_t out_features, int64_t in_features, DeviceBuffer data, DeviceBuffer bias)
      : LinearWeights(out_features, in_features), data_(std::move(data)), bias_(std::move(bias)) {}

  const void* data() const { return data_.data(); }
  int64_t stride() const { return in_features(); }
  /// The bias as F32 or BF16, or null.
  const void* bias(DType type) const {
    if (bias_.data() == nullptr) return nullptr;
    return static_cast<const char*>(bias_.data()) +
           (type == DType::kF32 ? 0 : BiasOffset(out_features()));
  }
  /// Bytes from the F32 bias to the BF16 one.
  static int64_t BiasOffset(int64_t out_features) { return (4 * out_features + 255) / 256 * 256; }

 private:
  DeviceBuffer data_;
  DeviceBuffer bias_;
};

inline const CudaLinearWeights& CudaWeights(const LinearWeights& weights) {
  return static_cast<const CudaLinearWeights&>(weights);
}

}  // namespace videonsa
