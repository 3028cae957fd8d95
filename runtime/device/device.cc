#include "runtime/device/device.h"

#include <sys/mman.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kPage = 4096;
// Buffers from here on ask for huge pages: weights are streamed once a token.
constexpr int64_t kHugeFrom = 4 << 20;

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

void Unmap(void* data, size_t bytes, void*) { munmap(data, bytes); }

}  // namespace

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this != &other) {
    Reset();
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(deleter_, other.deleter_);
    std::swap(context_, other.context_);
  }
  return *this;
}

void DeviceBuffer::Reset() {
  if (data_ != nullptr) deleter_(data_, bytes_, context_);
  data_ = nullptr;
  bytes_ = 0;
}

absl::StatusOr<DeviceBuffer> CpuDevice::Allocate(int64_t bytes, const char* what) {
  VNSA_CHECK_GE(bytes, 0) << what;
  const int64_t size = RoundUp(bytes > 0 ? bytes : 1, kPage);
  void* data = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                     absl::StrCat(what, ": cannot reserve ", bytes, " bytes"));
  }
  if (size >= kHugeFrom) madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);
  return DeviceBuffer(data, static_cast<size_t>(size), &Unmap);
}

void CpuDevice::Fill(void* data, int byte, int64_t bytes) {
  std::memset(data, byte, static_cast<size_t>(bytes));
}

int64_t Workspace::MatrixBytes(DType dtype, int64_t rows, int64_t cols) {
  return RoundUp(rows * cols * static_cast<int64_t>(SizeOf(dtype)), kAlignment);
}

TensorView Workspace::Matrix(DType dtype, int64_t rows, int64_t cols) {
  const size_t bytes = static_cast<size_t>(MatrixBytes(dtype, rows, cols));
  VNSA_CHECK_LE(used_ + bytes, buffer_.bytes()) << "workspace, matrix " << rows << " x " << cols;
  void* data = static_cast<char*>(buffer_.data()) + used_;
  used_ += bytes;
  return MatrixView(data, dtype, rows, cols);
}

}  // namespace videonsa
