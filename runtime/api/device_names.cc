#include "runtime/api/device_names.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/base/error.h"

namespace videonsa {

absl::StatusOr<DeviceNames> ParseDeviceNames(absl::string_view text) {
  DeviceNames names;
  if (text == "auto" || text.empty()) {
    names.automatic = true;
    return names;
  }
  if (text == "cpu") return names;
  names.gpus = true;
  names.all = text == "cuda:all";
  if (text == "cuda" || names.all) return names;
  for (absl::string_view name : absl::StrSplit(text, ',')) {
    if (!absl::ConsumePrefix(&name, "cuda:") && names.ordinals.empty()) {
      return InvalidField("device", absl::StrCat("\"", text,
                                                 "\" is not auto, cpu, cuda, cuda:all or a list "
                                                 "of cuda:N"));
    }
    int ordinal = 0;
    if (!absl::SimpleAtoi(name, &ordinal) || ordinal < 0) {
      return InvalidField("device", absl::StrCat("\"", text, "\": \"", name, "\" names no GPU"));
    }
    if (std::count(names.ordinals.begin(), names.ordinals.end(), ordinal) > 0) {
      return InvalidField("device", absl::StrCat("\"", text, "\" names GPU ", ordinal, " twice"));
    }
    names.ordinals.push_back(ordinal);
  }
  return names;
}

}  // namespace videonsa
