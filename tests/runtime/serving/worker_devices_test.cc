// Which GPUs which worker gets, on machines that the test makes up.
#include "runtime/serving/worker_devices.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

// A machine with so many GPUs; `broken` cannot be used.
GpuView Machine(int count, int broken = -1) {
  GpuView view;
  view.count = [=]() -> absl::StatusOr<int> {
    if (count > 0) return count;
    return MakeError(absl::StatusCode::kFailedPrecondition, "CUDA_NO_DEVICE", "no GPU is in view");
  };
  view.check = [=](int ordinal) -> absl::Status {
    if (count == 0 || ordinal >= count) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "CUDA_NO_DEVICE",
                       absl::StrCat("GPU ", ordinal, " of ", count, " in view"));
    }
    if (ordinal != broken) return absl::OkStatus();
    return MakeError(absl::StatusCode::kFailedPrecondition, "CUDA_DEVICE_BUSY", "busy");
  };
  return view;
}

absl::StatusOr<WorkerPlan> Plan(const std::string& device, int tensor_parallel,
                                const GpuView& view) {
  const absl::StatusOr<DeviceNames> names = ParseDeviceNames(device);
  if (!names.ok()) return names.status();
  return PlanWorkers(*names, tensor_parallel, view);
}

using Gpus = std::vector<std::vector<int>>;

TEST(WorkerDevices, EveryGpuNamedIsAWorker) {
  EXPECT_EQ(Plan("cuda:0,cuda:1", 1, Machine(2))->gpus, (Gpus{{0}, {1}}));
  EXPECT_EQ(Plan("cuda:3,1", 1, Machine(4))->gpus, (Gpus{{3}, {1}}));
  EXPECT_EQ(Plan("cuda:2", 1, Machine(4))->gpus, (Gpus{{2}}));
  EXPECT_EQ(Plan("cuda", 1, Machine(4))->gpus, (Gpus{{0}}));
  EXPECT_EQ(Plan("cuda:all", 1, Machine(3))->gpus, (Gpus{{0}, {1}, {2}}));
  EXPECT_EQ(Plan("auto", 1, Machine(3))->gpus, (Gpus{{0}}));
  EXPECT_EQ(Plan("cuda:0,cuda:1", 1, Machine(2))->device, DeviceKind::kCuda);
}

TEST(WorkerDevices, RanksTakeGpusInTheOrderGiven) {
  EXPECT_EQ(Plan("cuda:all", 2, Machine(4))->gpus, (Gpus{{0, 1}, {2, 3}}));
  EXPECT_EQ(Plan("cuda:3,cuda:0", 2, Machine(4))->gpus, (Gpus{{3, 0}}));
  EXPECT_EQ(Plan("cuda", 4, Machine(4))->gpus, (Gpus{{0, 1, 2, 3}}));
  EXPECT_EQ(Plan("auto", 2, Machine(2))->gpus, (Gpus{{0, 1}}));
}

TEST(WorkerDevices, TheCpuWhereNothingElseIsAskedForOrUsable) {
  for (const auto& [device, machine] : {std::pair{"cpu", Machine(2)},
                                        {"auto", Machine(0)},
                                        {"", Machine(0)},
                                        {"auto", Machine(2, 0)}}) {
    const auto plan = Plan(device, 1, machine);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->device, DeviceKind::kCpu) << device;
    EXPECT_TRUE(plan->gpus.empty());
  }
  // Two ranks, one GPU.
  EXPECT_EQ(Plan("auto", 2, Machine(1))->device, DeviceKind::kCpu);
}

TEST(WorkerDevices, WhatCannotBeIsATypedErrorWithTheNumbers) {
  struct Case {
    const char* device;
    int tensor_parallel;
    GpuView machine;
    const char* reason;
    const char* says;
  };
  for (const Case& test : {
           Case{"cuda:0,cuda:4", 1, Machine(2), "CUDA_NO_DEVICE", "GPU 4 of 2"},
           Case{"cuda:0,cuda:0", 1, Machine(2), "FIELD_INVALID", "GPU 0 twice"},
           Case{"cuda:1,0,1", 1, Machine(2), "FIELD_INVALID", "GPU 1 twice"},
           Case{"cuda:all", 1, Machine(0), "CUDA_NO_DEVICE", "in view"},
           Case{"cuda", 1, Machine(0), "CUDA_NO_DEVICE", "GPU 0 of 0"},
           Case{"cuda", 2, Machine(1), "CUDA_NO_DEVICE", "GPU 1 of 1"},
           Case{"cuda:0,cuda:1", 1, Machine(2, 1), "CUDA_DEVICE_BUSY", "busy"},
           Case{"cuda:all", 2, Machine(3), "FIELD_INVALID", "3 GPUs"},
           Case{"cuda:0", 2, Machine(4), "FIELD_INVALID", "tensor_parallel 2"},
           Case{"cuda:", 1, Machine(2), "FIELD_INVALID", "names no GPU"},
           Case{"cuda:0,", 1, Machine(2), "FIELD_INVALID", "names no GPU"},
           Case{"cuda:-1", 1, Machine(2), "FIELD_INVALID", "-1"},
           Case{"cuda:cuda:0", 1, Machine(2), "FIELD_INVALID", "cuda:0"},
           Case{"cuda:99999999999", 1, Machine(2), "FIELD_INVALID", "names no GPU"},
           Case{"cpu,cuda:0", 1, Machine(2), "FIELD_INVALID", "is not auto"},
           Case{"tpu", 1, Machine(2), "FIELD_INVALID", "tpu"},
       }) {
    const absl::Status status = Plan(test.device, test.tensor_parallel, test.machine).status();
    ASSERT_FALSE(status.ok()) << test.device;
    ASSERT_TRUE(GetErrorInfo(status).has_value()) << status;
    EXPECT_EQ(GetErrorInfo(status)->reason, test.reason) << test.device << ": " << status;
    EXPECT_TRUE(absl::StrContains(status.message(), test.says)) << test.device << ": " << status;
  }
}

// This machine, whatever it has: an error, or GPUs.
TEST(WorkerDevices, ARealMachineAnswers) {
  const auto plan = Plan("cuda:all", 1, GpuView());
  if (plan.ok()) {
    EXPECT_FALSE(plan->gpus.empty());
  } else {
    EXPECT_TRUE(absl::StartsWith(GetErrorInfo(plan.status())->reason, "CUDA_")) << plan.status();
  }
}

}  // namespace
}  // namespace videonsa
