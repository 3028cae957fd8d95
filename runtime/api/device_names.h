#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// Devices for a runtime's workers, as an operator names them.
struct DeviceNames {
  bool automatic = false;     ///< GPUs if they can be used, else the CPU
  bool gpus = false;          ///< GPUs or nothing
  bool all = false;           ///< every GPU in view
  std::vector<int> ordinals;  ///< GPUs by number, in the order given; empty: the first ones
};

/// Reads "auto" (or nothing), "cpu", "cuda", "cuda:all" or a list like "cuda:0,cuda:1" or
/// "cuda:0,1". Errors: INVALID_ARGUMENT (FIELD_INVALID): unknown, or a GPU named twice.
absl::StatusOr<DeviceNames> ParseDeviceNames(absl::string_view text);

}  // namespace videonsa
