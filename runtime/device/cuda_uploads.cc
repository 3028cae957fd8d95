#include "runtime/device/cuda_uploads.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr int kSegments = 4;
constexpr int64_t kRingBytes = kSegments * CudaUploads::kSegmentBytes;
// Page tables and marks of a step; more is added if a step ever needs it.
constexpr int64_t kKeptBytes = int64_t{16} << 20;
constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

absl::StatusOr<CudaUploads> CudaUploads::Create(CudaDevice& device) {
  VNSA_ASSIGN_OR_RETURN(CudaEvents events, CudaEvents::Create(device, kSegments));
  CudaUploads uploads(device, std::move(events));
  VNSA_ASSIGN_OR_RETURN(uploads.ring_, PinnedBuffer::Create(kRingBytes));
  VNSA_ASSIGN_OR_RETURN(uploads.ring_device_, device.Allocate(kRingBytes, "upload ring"));
  VNSA_RETURN_IF_ERROR(uploads.AddChunk(kKeptBytes));
  return uploads;
}

absl::Status CudaUploads::AddChunk(int64_t bytes) {
  Chunk chunk;
  VNSA_ASSIGN_OR_RETURN(chunk.host, PinnedBuffer::Create(bytes));
  VNSA_ASSIGN_OR_RETURN(chunk.device, device_->Allocate(bytes, "uploads of a step"));
  kept_.push_back(std::move(chunk));
  return absl::OkStatus();
}

void CudaUploads::BeginStep() {
  for (Chunk& chunk : kept_) chunk.used = 0;
}

int64_t CudaUploads::Take(int64_t bytes) {
  VNSA_CHECK_LE(bytes, kSegmentBytes);
  if (offset_ + bytes > kSegmentBytes) {
    // The next segment waits until its last copies have left host memory. What kernels still read
    // on the device is overwritten in the order of the stream, after them.
    left_.Record(segment_);
    segment_ = (segment_ + 1) % kSegments;
    left_.Wait(segment_);
    offset_ = 0;
  }
  const int64_t at = segment_ * kSegmentBytes + offset_;
  offset_ += Aligned(bytes);
  return at;
}

const void* CudaUploads::Pass(const void* host, int64_t bytes) {
  if (bytes > kSegmentBytes) return Keep(host, bytes);
  const int64_t at = Take(bytes);
  std::memcpy(ring_.data() + at, host, static_cast<size_t>(bytes));
  char* to = static_cast<char*>(ring_device_.data()) + at;
  device_->CopyIn(to, ring_.data() + at, bytes);
  return to;
}

const void* CudaUploads::Keep(const void* host, int64_t bytes) {
  const auto fits = [&](const Chunk& chunk) { return chunk.used + bytes <= chunk.host.bytes(); };
  auto place = std::find_if(kept_.begin(), kept_.end(), fits);
  if (place == kept_.end()) {
    const absl::Status added = AddChunk(std::max(kKeptBytes, Aligned(bytes)));
    VNSA_CHECK(added.ok()) << added;
    place = kept_.end() - 1;
  }
  char* staged = place->host.data() + place->used;
  char* to = static_cast<char*>(place->device.data()) + place->used;
  place->used += Aligned(bytes);
  std::memcpy(staged, host, static_cast<size_t>(bytes));
  device_->CopyIn(to, staged, bytes);
  return to;
}

char* CudaUploads::Stage(int64_t bytes) {
  staged_ = Take(bytes);
  return ring_.data() + staged_;
}

void CudaUploads::Send(void* to, int64_t bytes) {
  device_->CopyIn(to, ring_.data() + staged_, bytes);
}

}  // namespace videonsa
