#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/hash.h"
#include "server/clip_store/storage_dir.h"

namespace videonsa {

/// The bytes of an open upload: an append-only file with a running digest.
///
/// Bytes are written as they come and made durable every `kSyncBytes`, at the end of a stream and
/// before a size is told to anybody: what is told as committed survives a crash. After a crash the
/// file's size counts; the digest is computed again from the bytes on the first write.
/// Each stream that opens the upload begins a new epoch, and those before it can write no more, so
/// a client need not wait until the server notices that its last connection is dead.
///
/// Threads: all methods may be called from any thread; they wait for the disk.
class UploadFile {
 public:
  static constexpr int64_t kSyncBytes = 8 * 1024 * 1024;

  /// Takes over `fd`, open for reading and writing, holding `size` bytes.
  UploadFile(UniqueFd fd, int64_t size) : fd_(std::move(fd)), size_(size), synced_(size) {}

  /// Begins a new epoch, computing the digest of what is there if need be. Returns the epoch.
  /// Errors: ABORTED (UPLOAD_SUPERSEDED) once finished.
  absl::StatusOr<int64_t> BeginEpoch();

  /// Appends `data` at `offset`. Returns the size afterwards.
  /// Errors: ABORTED (UPLOAD_SUPERSEDED) if `epoch` is old, ABORTED (OFFSET_MISMATCH),
  ///         RESOURCE_EXHAUSTED (STORAGE_FULL); nothing was appended then.
  absl::StatusOr<int64_t> Append(int64_t epoch, int64_t offset, absl::string_view data);

  /// Makes all bytes durable and returns how many there are.
  absl::StatusOr<int64_t> Commit();

  /// Commits and returns the digest of all bytes; ends writing.
  /// Errors: ABORTED (UPLOAD_SUPERSEDED) if `epoch` is old.
  absl::StatusOr<Sha256Digest> Finish(int64_t epoch);

 private:
  absl::Status CheckEpoch(int64_t epoch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SyncLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const UniqueFd fd_;
  absl::Mutex mutex_;
  int64_t size_ ABSL_GUARDED_BY(mutex_);
  int64_t synced_ ABSL_GUARDED_BY(mutex_);  // <= size_
  int64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Sha256> digest_ ABSL_GUARDED_BY(mutex_);  // of [0, size_); unset until needed
};

/// ABORTED with OFFSET_MISMATCH and the right value in `committed_size`.
absl::Status OffsetMismatch(int64_t offset, int64_t committed);

}  // namespace videonsa
