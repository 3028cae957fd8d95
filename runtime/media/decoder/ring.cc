#include "runtime/media/decoder/ring.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace videonsa::decoder {

Ring::~Ring() {
  if (base_) munmap(base_, sample_.ring_bytes);
}

bool Ring::Map(int fd, const SampleBody& sample) {
  struct stat info;
  const bool fits =
      fstat(fd, &info) == 0 && static_cast<uint64_t>(info.st_size) == sample.ring_bytes &&
      sample.ring_bytes == RingBytes(sample.num_frames, sample.num_slots, sample.slot_bytes);
  void* base = fits ? mmap(nullptr, sample.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                    : MAP_FAILED;
  close(fd);
  if (base == MAP_FAILED) return false;
  base_ = static_cast<uint8_t*>(base);
  sample_ = sample;
  used_.assign(sample.num_slots, false);
  return true;
}

std::span<FrameTime> Ring::table() const {
  return {reinterpret_cast<FrameTime*>(base_), sample_.num_frames};
}

uint8_t* Ring::slot(uint32_t index) const {
  return base_ + TableBytes(sample_.num_frames) + index * sample_.slot_bytes;
}

bool Ring::TakeFree(uint32_t* slot) {
  for (uint32_t i = 0; i < used_.size(); ++i) {
    if (used_[i]) continue;
    used_[i] = true;
    *slot = i;
    return true;
  }
  return false;
}

bool Ring::Free(uint32_t slot) {
  if (slot >= used_.size() || !used_[slot]) return false;
  used_[slot] = false;
  return true;
}

}  // namespace videonsa::decoder
