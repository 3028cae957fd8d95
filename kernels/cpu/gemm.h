#pragma once

#include <cstdint>
#include <memory>

#include "kernels/common/thread_pool.h"
#include "kernels/cpu/packed_matrix.h"

namespace videonsa {

/// What happens to a finished product before it leaves the cache.
enum class GemmEpilogue : uint8_t {
  kStore,  ///< out = x w + bias
  kAdd,    ///< out += x w + bias; F32 only
  kGelu,   ///< out = gelu(x w + bias), exact erf form
};

/// out = epilogue(x w^T + bias).
///
/// Shapes: x    [m, k] of w's dtype, row stride x_stride
///         bias [n] fp32 or null
///         out  [m, n] of out_dtype (F32 or BF16), row stride out_stride
/// Units:  strides in elements.
struct GemmParams {
  const void* x = nullptr;
  int64_t x_stride = 0;
  int64_t m = 0;
  PackedMatrix w;
  const float* bias = nullptr;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
  void* out = nullptr;
  DType out_dtype = DType::kF32;
  int64_t out_stride = 0;
};

/// out = silu(x gate^T + gate_bias) * (x up^T + up_bias); shapes as GemmParams.
struct SwiGluParams {
  const void* x = nullptr;
  int64_t x_stride = 0;
  int64_t m = 0;
  PackedMatrix gate;
  PackedMatrix up;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  void* out = nullptr;
  DType out_dtype = DType::kF32;
  int64_t out_stride = 0;
};

/// Which code multiplies a tile.
enum class GemmEngine : uint8_t {
  kAuto,      ///< oneDNN where it takes packed weights (AVX-512), else the portable tile
  kOneDnn,    ///< for tests and benches
  kPortable,  ///< Highway, F32 weights only
};

/// Multiplies activations with packed weights.
///
/// oneDNN runs single-threaded on each pool thread, a tile of rows and a run of panels at a time:
/// there is no second group of threads, and the sum of one output element always runs over the
/// input axis in the same order. A row's result therefore does not depend on m (bitwise).
///
/// Threads: one caller at a time; work goes to the pool.
/// Numerics: fp32 sums; BF16 operands are multiplied exactly and summed in pairs.
class Gemm {
 public:
  explicit Gemm(ThreadPool& pool, GemmEngine engine = GemmEngine::kAuto);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  /// True if this machine multiplies BF16 pairs, so that BF16 weights pay.
  static bool MachineHasBf16();

  /// Builds the code for products with `w`, so that none is built on the step path.
  void Prepare(const PackedMatrix& w);
  void Run(const GemmParams& params);
  void Run(const SwiGluParams& params);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace videonsa
