#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/device/tensor_view.h"

struct CUstream_st;

namespace videonsa {

/// Owns one range of a device's memory.
///
/// Lifetime: must not outlive the device that allocated it.
class DeviceBuffer {
 public:
  using Deleter = void (*)(void* data, size_t bytes, void* context);

  DeviceBuffer() = default;
  DeviceBuffer(void* data, size_t bytes, Deleter deleter, void* context = nullptr)
      : data_(data), bytes_(bytes), deleter_(deleter), context_(context) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { Reset(); }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void Reset();

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Deleter deleter_ = nullptr;
  void* context_ = nullptr;
};

/// Where tensors live.
///
/// Threads: any; allocation happens at load and when a sequence is added, never on the step path.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;  ///< "cpu", or the GPU's
  /// Zero-filled memory aligned to 64 bytes. RESOURCE_EXHAUSTED (OUT_OF_MEMORY) names `what`.
  virtual absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes, const char* what) = 0;
  /// Sets every byte, after the work that was asked for before.
  virtual void Fill(void* data, int byte, int64_t bytes) = 0;
  /// Bytes that may still be allocated, or a large number where nobody can tell.
  virtual int64_t FreeBytes() const = 0;
  /// Where a GPU's work is enqueued; null where work is done when it is asked for.
  virtual CUstream_st* stream() const { return nullptr; }
  /// Bytes allocated and not given back; 0 where nobody counts them.
  virtual int64_t UsedBytes() const { return 0; }
};

/// Host memory. Pages are given by the system when they are first written, so a large reservation
/// costs only what is used.
class CpuDevice : public Device {
 public:
  std::string name() const override { return "cpu"; }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes, const char* what) override;
  void Fill(void* data, int byte, int64_t bytes) override;
  int64_t FreeBytes() const override { return INT64_MAX; }
};

/// Hands out slices of one buffer; all slices end together with Reset().
///
/// Owner: the worker thread. Invariant: what was planned fits; running over is our bug (CHECK).
class Workspace {
 public:
  Workspace() = default;
  explicit Workspace(DeviceBuffer buffer) : buffer_(std::move(buffer)) {}

  /// A [rows, cols] matrix, 64-byte aligned, content undefined.
  TensorView Matrix(DType dtype, int64_t rows, int64_t cols);
  /// Bytes that Matrix(dtype, rows, cols) takes.
  static int64_t MatrixBytes(DType dtype, int64_t rows, int64_t cols);

  const void* data() const { return buffer_.data(); }
  size_t capacity() const { return buffer_.bytes(); }
  size_t used() const { return used_; }
  /// Gives back everything taken after `used` was read.
  void ReleaseTo(size_t used) { used_ = used; }
  void Reset() { used_ = 0; }

 private:
  DeviceBuffer buffer_;
  size_t used_ = 0;
};

}  // namespace videonsa
