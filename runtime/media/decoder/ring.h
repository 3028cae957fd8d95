#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/media/decoder/wire.h"

namespace videonsa::decoder {

/// The decoder's view of the shared memory of a job: the frame table and the slots that are free.
class Ring {
 public:
  Ring() = default;
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  /// Maps `fd` (and closes it). False if the file is not as `sample` says.
  bool Map(int fd, const SampleBody& sample);

  std::span<FrameTime> table() const;
  uint8_t* slot(uint32_t index) const;

  /// A slot that the server does not hold, or nothing.
  bool TakeFree(uint32_t* slot);
  /// False if `slot` was not in use.
  bool Free(uint32_t slot);

 private:
  SampleBody sample_{};
  uint8_t* base_ = nullptr;
  std::vector<bool> used_;
};

}  // namespace videonsa::decoder
