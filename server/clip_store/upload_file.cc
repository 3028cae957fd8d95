#include "server/clip_store/upload_file.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

absl::Status ReadFailed() {
  return MakeError(absl::StatusCode::kInternal, "INTERNAL", "stored bytes cannot be read back");
}

// Digest of the first `size` bytes.
absl::StatusOr<Sha256> DigestOf(int fd, int64_t size) {
  Sha256 digest;
  std::string buffer(static_cast<size_t>(std::min<int64_t>(size, 1 << 20)), '\0');
  for (int64_t offset = 0; offset < size;) {
    const auto want =
        static_cast<size_t>(std::min<int64_t>(size - offset, static_cast<int64_t>(buffer.size())));
    const ssize_t got = pread(fd, buffer.data(), want, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return ReadFailed();
    digest.Update(absl::string_view(buffer.data(), static_cast<size_t>(got)));
    offset += got;
  }
  return digest;
}

}  // namespace

absl::Status OffsetMismatch(int64_t offset, int64_t committed) {
  return MakeError(
      absl::StatusCode::kAborted,
      ErrorInfo{.reason = "OFFSET_MISMATCH",
                .metadata = {{"committed_size", absl::StrCat(committed)},
                             {"offset", absl::StrCat(offset)}}},
      absl::StrCat("offset ", offset, " does not follow the ", committed, " bytes stored"));
}

absl::Status UploadFile::CheckEpoch(int64_t epoch) const {
  if (epoch == epoch_ && !finished_) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAborted, "UPLOAD_SUPERSEDED",
                   "another stream took this upload over");
}

absl::Status UploadFile::SyncLocked() {
  if (synced_ == size_) return absl::OkStatus();
  if (fdatasync(fd_.get()) != 0) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL", "stored bytes cannot be synced");
  }
  synced_ = size_;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> UploadFile::BeginEpoch() {
  absl::MutexLock lock(&mutex_);
  VNSA_RETURN_IF_ERROR(CheckEpoch(epoch_));
  VNSA_RETURN_IF_ERROR(SyncLocked());
  if (!digest_) {
    VNSA_ASSIGN_OR_RETURN(digest_, DigestOf(fd_.get(), size_));
  }
  return ++epoch_;
}

absl::StatusOr<int64_t> UploadFile::Append(int64_t epoch, int64_t offset, absl::string_view data) {
  absl::MutexLock lock(&mutex_);
  VNSA_RETURN_IF_ERROR(CheckEpoch(epoch));
  if (offset != size_) return OffsetMismatch(offset, size_);
  if (absl::Status written = WriteAll(fd_.get(), data, size_); !written.ok()) {
    // What a failed write left behind is no part of the upload.
    if (ftruncate(fd_.get(), size_) != 0) return ReadFailed();
    return written;
  }
  digest_->Update(data);
  size_ += static_cast<int64_t>(data.size());
  if (size_ - synced_ >= kSyncBytes) VNSA_RETURN_IF_ERROR(SyncLocked());
  return size_;
}

absl::StatusOr<int64_t> UploadFile::Commit() {
  absl::MutexLock lock(&mutex_);
  VNSA_RETURN_IF_ERROR(SyncLocked());
  return size_;
}

absl::StatusOr<Sha256Digest> UploadFile::Finish(int64_t epoch) {
  absl::MutexLock lock(&mutex_);
  VNSA_RETURN_IF_ERROR(CheckEpoch(epoch));
  VNSA_RETURN_IF_ERROR(SyncLocked());
  finished_ = true;
  return digest_->Finish();
}

}  // namespace videonsa
