#include "runtime/device/cuda_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr int kAlignment = 256;

absl::Status Unusable(const char* reason, const std::string& message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

// Whether code for one of the built architectures runs on compute capability major.minor.
bool CanRun(int major, int minor) {
  for (absl::string_view arch : absl::StrSplit(VIDEONSA_CUDA_ARCHS, ';', absl::SkipEmpty())) {
    const bool exact = arch.back() == 'a';
    if (exact) arch.remove_suffix(1);
    int built = 0;
    if (!absl::SimpleAtoi(arch, &built)) continue;
    if (exact ? built == 10 * major + minor
              : built / 10 < major || (built / 10 == major && built % 10 <= minor)) {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<int> CountCudaDevices() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return Unusable("CUDA_NO_DRIVER", "no NVIDIA driver is loaded on this machine");
  }
  if (driver < CUDART_VERSION / 1000 * 1000) {
    return Unusable("CUDA_DRIVER_TOO_OLD",
                    absl::StrCat("the driver supports CUDA ", VersionText(driver), ", ",
                                 VersionText(CUDART_VERSION / 1000 * 1000), " is needed"));
  }
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    return Unusable("CUDA_DRIVER_TOO_OLD",
                    absl::StrCat("the driver of CUDA ", VersionText(driver),
                                 " is too old for runtime ", VersionText(CUDART_VERSION)));
  }
  if (error != cudaSuccess || count == 0) {
    return Unusable("CUDA_NO_DEVICE",
                    absl::StrCat("no GPU is in view (CUDA_VISIBLE_DEVICES hides all or there is "
                                 "none): ",
                                 cudaGetErrorString(error)));
  }
  return count;
}

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create(int ordinal) {
  VNSA_ASSIGN_OR_RETURN(const int count, CountCudaDevices());
  if (ordinal < 0 || ordinal >= count) {
    return Unusable("CUDA_NO_DEVICE", absl::StrCat("GPU ", ordinal, " of ", count, " in view"));
  }
  cudaDeviceProp facts;
  if (const cudaError_t error = cudaGetDeviceProperties(&facts, ordinal); error != cudaSuccess) {
    return Unusable("CUDA_NO_DEVICE",
                    absl::StrCat("GPU ", ordinal, ": ", cudaGetErrorString(error)));
  }
  if (!CanRun(facts.major, facts.minor)) {
    return Unusable(
        "CUDA_ARCH_UNSUPPORTED",
        absl::StrCat("GPU ", ordinal, " (", facts.name, ") has architecture sm_", facts.major,
                     facts.minor, ", this program was built for sm_", VIDEONSA_CUDA_ARCHS));
  }
  std::unique_ptr<CudaDevice> device(new CudaDevice());
  device->name_ = facts.name;
  device->ordinal_ = ordinal;
  cudaError_t error = cudaSetDevice(ordinal);
  if (error == cudaSuccess) {
    error = cudaStreamCreateWithFlags(&device->stream_, cudaStreamNonBlocking);
  }
  if (error != cudaSuccess) {
    return Unusable(
        "CUDA_DEVICE_BUSY",
        absl::StrCat("GPU ", ordinal, " cannot be used now: ", cudaGetErrorString(error)));
  }
  cudaMemPoolProps props = {};
  props.allocType = cudaMemAllocationTypePinned;
  props.location.type = cudaMemLocationTypeDevice;
  props.location.id = ordinal;
  cudaMemPool_t pool = nullptr;
  error = cudaMemPoolCreate(&pool, &props);
  uint64_t keep = UINT64_MAX;  // memory stays with the pool until the device ends
  if (error == cudaSuccess) {
    error = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
  }
  if (error != cudaSuccess) {
    return Unusable(
        "CUDA_DEVICE_BUSY",
        absl::StrCat("GPU ", ordinal, " has no memory pool: ", cudaGetErrorString(error)));
  }
  device->pool_ = pool;
  return device;
}

CudaDevice::~CudaDevice() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  if (pool_ != nullptr) cudaMemPoolDestroy(static_cast<cudaMemPool_t>(pool_));
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::StatusOr<DeviceBuffer> CudaDevice::Allocate(int64_t bytes, const char* what) {
  VNSA_CHECK_GE(bytes, 0) << what;
  const int64_t size = (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* data = nullptr;
  Bind();  // the worker thread may not be the one that created the device
  const cudaError_t error = cudaMallocFromPoolAsync(&data, static_cast<size_t>(size),
                                                    static_cast<cudaMemPool_t>(pool_), stream_);
  if (error != cudaSuccess) {
    cudaGetLastError();  // this failure is told here and not again
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     absl::StrCat(what, ": cannot allocate ", size, " bytes on the GPU, ", free,
                                  " of ", total, " are free: ", cudaGetErrorString(error)));
  }
  Note(cudaMemsetAsync(data, 0, static_cast<size_t>(size), stream_), "clearing memory");
  used_bytes_ += size;
  return DeviceBuffer(data, static_cast<size_t>(size), &CudaDevice::Free, this);
}

void CudaDevice::Free(void* data, size_t bytes, void* device) {
  auto* const self = static_cast<CudaDevice*>(device);
  self->used_bytes_ -= static_cast<int64_t>(bytes);
  cudaFreeAsync(data, self->stream_);
}

void CudaDevice::Fill(void* data, int byte, int64_t bytes) {
  Note(cudaMemsetAsync(data, byte, static_cast<size_t>(bytes), stream_), "filling memory");
}

int64_t CudaDevice::FreeBytes() const {
  size_t free = 0, total = 0;
  uint64_t reserved = 0, used = 0;
  cudaStreamSynchronize(stream_);
  cudaMemGetInfo(&free, &total);
  const cudaMemPool_t pool = static_cast<cudaMemPool_t>(pool_);
  cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved);
  cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used);
  return static_cast<int64_t>(free) + static_cast<int64_t>(reserved - used);
}

void CudaDevice::Bind() { Note(cudaSetDevice(ordinal_), "choosing the GPU"); }

void CudaDevice::Note(int error, const char* what) {
  if (error == cudaSuccess || !status_.ok()) return;
  status_ = MakeError(
      absl::StatusCode::kUnavailable, "DEVICE_LOST",
      absl::StrCat("GPU ", ordinal_, ": ", what, ": ",
                   cudaGetErrorString(static_cast<cudaError_t>(error)), " (", error, ")"));
}

absl::Status CudaDevice::Synchronize() {
  Note(cudaStreamSynchronize(stream_), "running a step");
  return status_;
}

void CudaDevice::CopyIn(void* device, const void* host, int64_t bytes) {
  Note(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
       "copying in");
}

void CudaDevice::CopyOut(void* host, const void* device, int64_t bytes) {
  Note(cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
       "copying out");
}

void CudaDevice::CopyWithin(void* to, const void* from, int64_t bytes) {
  Note(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_),
       "copying");
}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Create(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocDefault);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return MakeError(
        absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
        absl::StrCat("cannot pin ", bytes, " bytes of host memory: ", cudaGetErrorString(error)));
  }
  PinnedBuffer buffer;
  buffer.data_ = static_cast<char*>(data);
  buffer.bytes_ = bytes;
  return buffer;
}

absl::StatusOr<CudaEvents> CudaEvents::Create(CudaDevice& device, int count) {
  CudaEvents events(device);
  for (int i = 0; i < count; ++i) {
    cudaEvent_t event = nullptr;
    device.Note(cudaEventCreate(&event), "creating an event");
    if (!device.status().ok()) return device.status();
    events.events_.push_back(event);
  }
  return events;
}

CudaEvents& CudaEvents::operator=(CudaEvents&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(events_, other.events_);
  return *this;
}

CudaEvents::~CudaEvents() {
  for (CUevent_st* event : events_) cudaEventDestroy(event);
}

void CudaEvents::Record(int index) {
  device_->Note(cudaEventRecord(events_[static_cast<size_t>(index)], device_->stream()),
                "recording an event");
}

void CudaEvents::Wait(int index) {
  device_->Note(cudaEventSynchronize(events_[static_cast<size_t>(index)]), "waiting for an event");
}

double CudaEvents::SecondsBetween(int first, int second) const {
  float ms = 0;
  cudaEventElapsedTime(&ms, events_[static_cast<size_t>(first)],
                       events_[static_cast<size_t>(second)]);
  return 1e-3 * static_cast<double>(ms);
}

std::string DescribeCudaDevices() {
  const absl::StatusOr<int> count = CountCudaDevices();
  if (!count.ok()) return std::string(count.status().message());
  std::string text;
  for (int ordinal = 0; ordinal < *count; ++ordinal) {
    cudaDeviceProp facts;
    if (cudaGetDeviceProperties(&facts, ordinal) != cudaSuccess) continue;
    absl::StrAppend(&text, text.empty() ? "" : ", ", "cuda:", ordinal, " ", facts.name, " sm_",
                    facts.major, facts.minor,
                    CanRun(facts.major, facts.minor) ? "" : " (not supported by this build)");
  }
  return text;
}

}  // namespace videonsa
