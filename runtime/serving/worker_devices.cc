#include "runtime/serving/worker_devices.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {

absl::StatusOr<WorkerPlan> PlanWorkers(const DeviceNames& names, int tensor_parallel,
                                       const GpuView& view) {
  WorkerPlan plan;
  if (!names.automatic && !names.gpus) return plan;
  std::vector<int> ordinals = names.ordinals;
  if (ordinals.empty()) {
    int wanted = tensor_parallel;
    if (names.all) {
      VNSA_ASSIGN_OR_RETURN(wanted, view.count());
    }
    ordinals.resize(static_cast<size_t>(wanted));
    std::iota(ordinals.begin(), ordinals.end(), 0);
  }
  const int count = static_cast<int>(ordinals.size());
  if (count % tensor_parallel != 0) {
    return InvalidField(
        "device",
        absl::StrCat(count, " GPUs do not make groups of tensor_parallel ", tensor_parallel));
  }
  for (int ordinal : ordinals) {
    const absl::Status status = view.check(ordinal);
    if (status.ok()) continue;
    if (names.automatic) return plan;
    return status;
  }
  plan.device = DeviceKind::kCuda;
  for (int first = 0; first < count; first += tensor_parallel) {
    plan.gpus.emplace_back(ordinals.begin() + first, ordinals.begin() + first + tensor_parallel);
  }
  return plan;
}

}  // namespace videonsa
