#pragma once

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/api/device_names.h"
#include "runtime/executor/executor_factory.h"

/// Which devices the workers of a runtime have.
namespace videonsa {

/// The machine as PlanWorkers asks it; tests have their own.
struct GpuView {
  std::function<absl::StatusOr<int>()> count = &CountGpus;
  std::function<absl::Status(int ordinal)> check = &CheckGpu;
};

/// Devices of each worker.
struct WorkerPlan {
  DeviceKind device = DeviceKind::kCpu;
  std::vector<std::vector<int>> gpus;  ///< by worker, its ranks' GPUs; empty on a CPU
};

/// Groups of `tensor_parallel` GPUs, a worker each, in the order in which they were named. `cuda`
/// and `auto` without numbers mean one worker on the first GPUs.
///
/// Errors: INVALID_ARGUMENT (FIELD_INVALID) if the GPUs do not make whole groups;
///         FAILED_PRECONDITION (CUDA_NO_DEVICE and those of CheckGpu) if one is not there.
absl::StatusOr<WorkerPlan> PlanWorkers(const DeviceNames& names, int tensor_parallel,
                                       const GpuView& view);

}  // namespace videonsa
