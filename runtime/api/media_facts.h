#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace videonsa {

/// What the prober found in a stored file.
struct MediaFacts {
  bool image = false;
  std::string container;
  std::string codec;
  int width = 0, height = 0;  ///< after rotation
  absl::Duration duration;
  double average_fps = 0;
  int64_t packet_count = 0;
};

}  // namespace videonsa
