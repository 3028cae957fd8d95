#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"
#include "runtime/base/check.h"

namespace videonsa {

/// A tensor in somebody else's memory: non-owning, trivially copyable.
///
/// Units: strides in elements, row-major; the last dimension is contiguous unless said otherwise.
struct TensorView {
  static constexpr int kMaxRank = 5;

  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  int64_t dims[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};

  int64_t rows() const { return dims[0]; }
  int64_t cols() const { return dims[rank - 1]; }
  int64_t row_stride() const { return strides[0]; }
  int64_t num_elements() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= dims[axis];
    return product;
  }

  template <typename T>
  T* As() const {
    VNSA_DCHECK(sizeof(T) == SizeOf(dtype)) << "element of " << SizeOf(dtype) << " bytes";
    return static_cast<T*>(data);
  }
  float* f32() const {
    VNSA_CHECK(dtype == DType::kF32) << "dtype " << static_cast<int>(dtype);
    return static_cast<float*>(data);
  }

  /// Rows [begin, begin + count) of the first dimension.
  TensorView Rows(int64_t begin, int64_t count) const {
    VNSA_CHECK(begin >= 0 && count >= 0 && begin + count <= dims[0])
        << begin << " + " << count << " rows of " << dims[0];
    TensorView view = *this;
    view.data = static_cast<char*>(data) + static_cast<size_t>(begin * strides[0]) * SizeOf(dtype);
    view.dims[0] = count;
    return view;
  }
};

/// A [rows, cols] matrix; row_stride 0 means cols.
inline TensorView MatrixView(void* data, DType dtype, int64_t rows, int64_t cols,
                             int64_t row_stride = 0) {
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.rank = 2;
  view.dims[0] = rows;
  view.dims[1] = cols;
  view.strides[0] = row_stride == 0 ? cols : row_stride;
  view.strides[1] = 1;
  return view;
}

}  // namespace videonsa
