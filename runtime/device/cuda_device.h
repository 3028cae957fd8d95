#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/device/device.h"

struct CUevent_st;

namespace videonsa {

/// One GPU and the stream on which everything of one worker runs. Needs no header of the toolkit.
///
/// Memory comes from the driver's stream-ordered pool: giving a buffer back does not wait, and a
/// buffer may be given back while work that reads it is still queued.
/// Owner: one worker thread. Lifetime: after all its buffers.
class CudaDevice : public Device {
 public:
  /// Checks driver, device, architecture and access; errors as CreateCudaBackend
  /// (runtime/ops/backends.h).
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(int ordinal);
  ~CudaDevice() override;

  std::string name() const override { return name_; }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes, const char* what) override;
  void Fill(void* data, int byte, int64_t bytes) override;
  int64_t FreeBytes() const override;
  int64_t UsedBytes() const override { return used_bytes_; }

  CUstream_st* stream() const override { return stream_; }
  /// Makes this GPU the calling thread's; before the first use on a thread.
  void Bind();
  /// Remembers the first failure; `error` is the value of a cudaError_t.
  void Note(int error, const char* what);
  /// OK, or UNAVAILABLE (DEVICE_LOST) with the first failure.
  const absl::Status& status() const { return status_; }
  /// Waits for everything enqueued.
  absl::Status Synchronize();

  /// Enqueue copies; host memory must be pinned or stay as it is until they are done.
  void CopyIn(void* device, const void* host, int64_t bytes);
  void CopyOut(void* host, const void* device, int64_t bytes);
  void CopyWithin(void* to, const void* from, int64_t bytes);

 private:
  CudaDevice() = default;
  static void Free(void* data, size_t bytes, void* device);

  std::string name_;
  int ordinal_ = 0;
  CUstream_st* stream_ = nullptr;
  void* pool_ = nullptr;  // cudaMemPool_t
  int64_t used_bytes_ = 0;
  absl::Status status_;
};

/// Host memory that a GPU reads directly.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer();
  /// Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<PinnedBuffer> Create(int64_t bytes);

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  int64_t bytes_ = 0;
};

/// Points in a stream's work: ring borders and times.
class CudaEvents {
 public:
  /// Errors: DEVICE_LOST.
  static absl::StatusOr<CudaEvents> Create(CudaDevice& device, int count);
  CudaEvents(CudaEvents&& other) noexcept = default;
  CudaEvents& operator=(CudaEvents&& other) noexcept;
  ~CudaEvents();

  /// Event `index` will have happened when everything enqueued so far is done.
  void Record(int index);
  /// Waits for the last Record of the event; none: returns at once.
  void Wait(int index);
  /// Seconds between two events that have happened.
  double SecondsBetween(int first, int second) const;
  int count() const { return static_cast<int>(events_.size()); }

 private:
  explicit CudaEvents(CudaDevice& device) : device_(&device) {}

  CudaDevice* device_;
  std::vector<CUevent_st*> events_;
};

/// Number of GPUs in view, at least one. Errors: those of CudaDevice::Create about the driver.
absl::StatusOr<int> CountCudaDevices();

/// One line on the GPUs in view, or on why none can be used.
std::string DescribeCudaDevices();

}  // namespace videonsa
