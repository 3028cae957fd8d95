// Stands in for the CUDA backend in builds without it.
#include "runtime/base/error.h"
#include "runtime/ops/backends.h"

namespace videonsa {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int, std::optional<DType>) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "CUDA_NOT_BUILT",
                   "this program was built without CUDA (VIDEONSA_CUDA)");
}

absl::StatusOr<int> CountCudaBackends() { return CheckCudaBackend(0); }

absl::Status CheckCudaBackend(int ordinal) {
  return CreateCudaBackend(ordinal, std::nullopt).status();
}

std::string DescribeBackends() { return "cpu; built without CUDA"; }

}  // namespace videonsa
