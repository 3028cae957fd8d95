#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace videonsa {

/// An open file descriptor, closed when destroyed.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release();

 private:
  int fd_ = -1;
};

/// A private directory of plain files whose names we made: mode 0700, files 0600, no symbolic links
/// followed, one process at a time.
///
/// Threads: all methods may be called from any thread; the caller keeps writers of one file apart.
/// Errors:  RESOURCE_EXHAUSTED (STORAGE_FULL), INTERNAL; never a path in the message.
class StorageDir {
 public:
  /// Creates the directory if need be and locks it.
  /// Errors: FAILED_PRECONDITION if it is another user's, a link, or locked by another process.
  static absl::StatusOr<std::unique_ptr<StorageDir>> Open(const std::string& path);

  /// Creates `name`, which must not exist, for reading and writing.
  absl::StatusOr<UniqueFd> CreateFile(const std::string& name) const;
  /// Opens `name` for reading and writing.
  absl::StatusOr<UniqueFd> OpenFile(const std::string& name) const;
  /// Size of `name`, or -1 if there is no such plain file.
  int64_t SizeOf(const std::string& name) const;
  /// Bytes of `name`; refuses more than `max_bytes`.
  absl::StatusOr<std::string> Read(const std::string& name, int64_t max_bytes) const;
  /// Replaces `name` by `bytes` so that a crash leaves the old or the new content, durably.
  absl::Status WriteAtomic(const std::string& name, absl::string_view bytes) const;
  /// Renames and makes the change durable.
  absl::Status Rename(const std::string& from, const std::string& to) const;
  /// Removes `name`; a missing file is fine.
  void Remove(const std::string& name) const;
  /// Makes creations and removals durable.
  absl::Status Sync() const;
  /// Names of all plain files.
  std::vector<std::string> List() const;
  /// Absolute path of `name`, for another process to open.
  std::string PathOf(const std::string& name) const { return path_ + "/" + name; }

  /// Bytes of the file system, and those still free to us.
  struct Space {
    int64_t total_bytes = 0;
    int64_t free_bytes = 0;
  };
  Space FreeSpace() const;

 private:
  StorageDir(std::string path, UniqueFd dir, UniqueFd lock);

  const std::string path_;  // absolute
  const UniqueFd dir_;
  const UniqueFd lock_;
};

/// Writes all of `data` at `offset`. Errors: RESOURCE_EXHAUSTED (STORAGE_FULL), INTERNAL.
absl::Status WriteAll(int fd, absl::string_view data, int64_t offset);

}  // namespace videonsa
