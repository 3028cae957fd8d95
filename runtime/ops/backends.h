#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/ops/backend.h"

/// The backends there are, without their libraries' headers.
namespace videonsa {

/// `compute_type` is F32 or BF16; unset: BF16 where the CPU multiplies bf16 pairs.
/// Errors: INVALID_ARGUMENT (FIELD_INVALID) for BF16 on a CPU without AVX512_BF16.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(int num_threads,
                                                          std::optional<DType> compute_type);

/// `ordinal` counts the GPUs in view; `compute_type` as above, BF16 if unset. F32 is exact: no
/// reduced formats inside products.
///
/// Errors, each one line with the numbers: FAILED_PRECONDITION (CUDA_NOT_BUILT, CUDA_NO_DRIVER,
///         CUDA_DRIVER_TOO_OLD, CUDA_NO_DEVICE, CUDA_ARCH_UNSUPPORTED, CUDA_LIBRARY_MISSING,
///         CUDA_DEVICE_BUSY), RESOURCE_EXHAUSTED (OUT_OF_MEMORY).
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int ordinal,
                                                           std::optional<DType> compute_type);

/// Number of GPUs in view, at least one. Errors: those of CreateCudaBackend about the driver.
absl::StatusOr<int> CountCudaBackends();

/// OK if CreateCudaBackend would start on this GPU, else its error.
absl::Status CheckCudaBackend(int ordinal);

/// One line on what this program can run on: "cpu" and every usable GPU, or why there is none.
std::string DescribeBackends();

}  // namespace videonsa
