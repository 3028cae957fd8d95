#pragma once

#include "kernels/common/cuda_launch.h"

namespace videonsa {

/// Cuts arrays out of a scratch buffer; over null it only counts the bytes.
class CudaScratchCursor {
 public:
  explicit CudaScratchCursor(void* data) : data_(static_cast<char*>(data)) {}

  template <typename T>
  T* Take(size_t count) {
    constexpr size_t kAlign = 256;
    T* taken = data_ == nullptr ? nullptr : reinterpret_cast<T*>(data_ + used_);
    used_ += (count * sizeof(T) + kAlign - 1) / kAlign * kAlign;
    return taken;
  }
  size_t used() const { return used_; }

 private:
  char* data_;
  size_t used_ = 0;
};

}  // namespace videonsa
