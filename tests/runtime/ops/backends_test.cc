// What a program says about workers that a machine may or may not have.
#include "runtime/ops/backends.h"

#include <gtest/gtest.h>

#include <set>

#include "runtime/base/error.h"

namespace videonsa {
namespace {

// A GPU that cannot be used is one clear line with a reason, never a crash: the machines that run
// this have no GPU, another driver, or none that this build knows.
TEST(Backends, AGpuThatCannotBeUsedSaysWhy) {
  const std::set<std::string> reasons = {
      "CUDA_NOT_BUILT",        "CUDA_NO_DRIVER",       "CUDA_DRIVER_TOO_OLD", "CUDA_NO_DEVICE",
      "CUDA_ARCH_UNSUPPORTED", "CUDA_LIBRARY_MISSING", "CUDA_DEVICE_BUSY",    "OUT_OF_MEMORY"};
  // No machine has so many.
  const absl::Status status = CreateCudaBackend(4096, DType::kBF16).status();
  ASSERT_FALSE(status.ok());
  ASSERT_TRUE(GetErrorInfo(status).has_value()) << status;
  EXPECT_EQ(reasons.count(GetErrorInfo(status)->reason), 1u) << status;
  EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
  EXPECT_FALSE(CheckCudaBackend(4096).ok());
}

TEST(Backends, TheCpuIsAlwaysThere) {
  EXPECT_EQ(DescribeBackends().rfind("cpu; ", 0), 0u) << DescribeBackends();
  const auto backend = CreateCpuBackend(1, DType::kF32);
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_EQ((*backend)->device().name(), "cpu");
}

}  // namespace
}  // namespace videonsa
