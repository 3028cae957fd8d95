#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "absl/status/statusor.h"
#include "kernels/common/dtype.h"
#include "runtime/device/cuda_device.h"

namespace videonsa {

/// out = x w^T + bias, or out += that.
///
/// Shapes: x [rows, k], w [n, k], out [rows, n] row-major with strides in elements; bias [n] of
///         out's type or null
/// Types:  x and w alike, F32 or BF16; out F32, or BF16 with BF16 x. Sums are fp32; F32 uses no
///         reduced formats.
struct MatMulArgs {
  DType in_type = DType::kF32;
  DType out_type = DType::kF32;
  const void* x = nullptr;
  int64_t x_stride = 0;
  const void* w = nullptr;
  int64_t w_stride = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
  const void* bias = nullptr;
  int64_t rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  bool accumulate = false;
};

/// Matrix products by cuBLASLt, which is loaded when the first GPU worker starts: a program without
/// one needs no such library.
///
/// Owner: the worker thread. Failures are noted on the device.
class CublasLt {
 public:
  /// Errors: FAILED_PRECONDITION (CUDA_LIBRARY_MISSING), RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<CublasLt>> Create(CudaDevice& device);
  ~CublasLt();

  void MatMul(const MatMulArgs& args);

 private:
  struct Library;
  struct Plan;
  // Everything that decides how a product is computed.
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, uint32_t, uint32_t,
                         DType, DType, bool, bool>;

  explicit CublasLt(CudaDevice& device);
  Plan* FindPlan(const MatMulArgs& args);
  int ChooseAlgorithm(const MatMulArgs& args, Plan& plan);

  CudaDevice& device_;
  std::unique_ptr<Library> library_;
  void* handle_ = nullptr;
  DeviceBuffer workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace videonsa
