#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/dtype.h"

/// A stream as the CUDA runtime declares it; needs no header of the toolkit.
struct CUstream_st;

/// What every CUDA launcher shares.
///
/// A launcher enqueues on its stream, copies its params before it returns, and neither allocates
/// nor synchronises nor reads device memory on the host, so it can be captured in a graph. It
/// returns the value of a cudaError_t: 0 is success, 1 (cudaErrorInvalidValue) a shape or type it
/// has no kernel for, anything else the launch error. Nothing to do is success. Pointers in params
/// are device pointers unless the params say otherwise. A row's result does not depend on the
/// other rows of the call.
namespace videonsa {

using CudaStream = CUstream_st*;
using CudaStatus = int;

/// Memory on the device lent to a launcher for one call; 256-byte aligned, at least the bytes that
/// its query function names. Its content means nothing before and after.
struct CudaScratch {
  void* data = nullptr;
  size_t bytes = 0;
};

/// A matrix on the device: element c of row r at data + (r * row_stride + c) elements.
///
/// Units:    row_stride in elements.
/// Requires: dtype F32 or BF16. Launchers are fastest, and attention requires, rows on 16-byte
///           borders.
struct CudaConstRows {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t row_stride = 0;
};
struct CudaRows {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t row_stride = 0;

  operator CudaConstRows() const { return {data, dtype, row_stride}; }
};

}  // namespace videonsa
