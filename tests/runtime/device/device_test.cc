#include "runtime/device/device.h"

#include <cstdint>
#include <cstring>

#include "gtest/gtest.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

TEST(CpuDevice, BuffersAreAlignedAndZero) {
  CpuDevice device;
  for (int64_t bytes : {0, 1, 4096, 5 << 20}) {
    auto buffer = device.Allocate(bytes, "test");
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    const char* data = static_cast<const char*>(buffer->data());
    for (int64_t i = 0; i < bytes; i += 511) ASSERT_EQ(data[i], 0) << i;
  }
}

TEST(CpuDevice, TooMuchIsATypedError) {
  CpuDevice device;
  const auto buffer = device.Allocate(int64_t{1} << 62, "weights");
  ASSERT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorInfo(buffer.status())->reason, "OUT_OF_MEMORY");
}

TEST(DeviceBuffer, MovesItsMemory) {
  CpuDevice device;
  DeviceBuffer first = *device.Allocate(64, "test");
  void* data = first.data();
  DeviceBuffer second = std::move(first);
  EXPECT_EQ(second.data(), data);
  EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move)
  second = *device.Allocate(64, "test");
  EXPECT_NE(second.data(), nullptr);
}

TEST(Workspace, HandsOutDisjointAlignedMatrices) {
  CpuDevice device;
  const int64_t bytes =
      Workspace::MatrixBytes(DType::kF32, 3, 5) + Workspace::MatrixBytes(DType::kBF16, 7, 3);
  Workspace workspace(*device.Allocate(bytes, "test"));
  const TensorView a = workspace.Matrix(DType::kF32, 3, 5);
  const size_t used = workspace.used();
  const TensorView b = workspace.Matrix(DType::kBF16, 7, 3);
  std::memset(a.data, 1, 3 * 5 * 4);
  std::memset(b.data, 2, 7 * 3 * 2);
  EXPECT_EQ(static_cast<char*>(a.data)[59], 1);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data) % 64, 0u);
  workspace.ReleaseTo(used);
  EXPECT_EQ(workspace.Matrix(DType::kF32, 1, 1).data, b.data);
  workspace.Reset();
  EXPECT_EQ(workspace.Matrix(DType::kF32, 1, 1).data, a.data);
}

TEST(WorkspaceDeathTest, RunningOverIsOurBug) {
  CpuDevice device;
  Workspace workspace(*device.Allocate(4096, "test"));
  EXPECT_DEATH(workspace.Matrix(DType::kF32, 1025, 1), "workspace");
}

TEST(TensorView, RowsKeepTheStride) {
  float data[12] = {};
  const TensorView matrix = MatrixView(data, DType::kF32, 3, 2, 4);
  const TensorView last = matrix.Rows(2, 1);
  EXPECT_EQ(last.f32(), data + 8);
  EXPECT_EQ(last.row_stride(), 4);
  EXPECT_EQ(matrix.num_elements(), 6);
}

}  // namespace
}  // namespace videonsa
