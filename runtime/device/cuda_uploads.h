#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/device/cuda_device.h"

namespace videonsa {

/// Small host arrays on their way to the GPU, through pinned memory and without waiting.
///
/// Owner: the worker thread.
class CudaUploads {
 public:
  /// Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<CudaUploads> Create(CudaDevice& device);

  /// A copy for operations enqueued next; overwritten some megabytes of copies later. An array that
  /// does not fit a segment of the ring is kept until the step ends.
  const void* Pass(const void* host, int64_t bytes);
  /// A copy that lasts until BeginStep.
  const void* Keep(const void* host, int64_t bytes);
  /// Forgets what was kept. Requires: the device has caught up.
  void BeginStep();

  /// Pinned memory of at most kSegmentBytes to be filled and then given to Send, which copies it
  /// to `to` on the device.
  char* Stage(int64_t bytes);
  void Send(void* to, int64_t bytes);

  static constexpr int64_t kSegmentBytes = int64_t{8} << 20;

 private:
  struct Chunk {
    PinnedBuffer host;
    DeviceBuffer device;
    int64_t used = 0;
  };

  CudaUploads(CudaDevice& device, CudaEvents events) : device_(&device), left_(std::move(events)) {}
  absl::Status AddChunk(int64_t bytes);
  // Place in the ring for `bytes`.
  int64_t Take(int64_t bytes);

  CudaDevice* device_;
  PinnedBuffer ring_;
  DeviceBuffer ring_device_;
  CudaEvents left_;  // by segment: its copies have been enqueued
  int segment_ = 0;
  int64_t offset_ = 0;  // in the segment
  int64_t staged_ = 0;
  std::vector<Chunk> kept_;
};

}  // namespace videonsa
