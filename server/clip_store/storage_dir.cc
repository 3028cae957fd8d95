#include "server/clip_store/storage_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

constexpr char kLockName[] = "LOCK";
constexpr char kTemporarySuffix[] = ".new";

absl::Status IoError(const char* what, int error) {
  if (error == ENOSPC || error == EDQUOT) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     ErrorInfo{.reason = "STORAGE_FULL", .retry_after = absl::Seconds(30)},
                     "the server's clip storage is full");
  }
  return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                   absl::StrCat("clip storage: ", what, " failed with error number ", error));
}

absl::Status Unusable(absl::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "CLIP_DIR_UNUSABLE",
                   absl::StrCat("clip directory ", why));
}

// Creates the directory and its parents; only the last one must be private.
bool MakeDirectories(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    if (mkdir(path.substr(0, slash).c_str(), 0755) != 0 && errno != EEXIST) return false;
  }
  return mkdir(path.c_str(), 0700) == 0 || errno == EEXIST;
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = other.Release();
  }
  return *this;
}

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) close(fd_);
}

int UniqueFd::Release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

StorageDir::StorageDir(std::string path, UniqueFd dir, UniqueFd lock)
    : path_(std::move(path)), dir_(std::move(dir)), lock_(std::move(lock)) {}

absl::StatusOr<std::unique_ptr<StorageDir>> StorageDir::Open(const std::string& path) {
  if (path.empty() || !MakeDirectories(path)) return Unusable("cannot be created");
  UniqueFd dir(open(path.c_str(), O_DIRECTORY | O_NOFOLLOW | O_RDONLY | O_CLOEXEC));
  if (!dir.valid()) return Unusable("cannot be opened, or is a symbolic link");
  struct stat facts {};
  if (fstat(dir.get(), &facts) != 0 || facts.st_uid != geteuid()) {
    return Unusable("belongs to another user");
  }
  if ((facts.st_mode & 077) != 0 && fchmod(dir.get(), 0700) != 0) {
    return Unusable("is open to other users");
  }
  UniqueFd lock(openat(dir.get(), kLockName, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock.valid()) return Unusable("cannot be written");
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return Unusable("is used by another process");
  char absolute[PATH_MAX];
  if (realpath(path.c_str(), absolute) == nullptr) return Unusable("has no absolute path");
  return std::unique_ptr<StorageDir>(new StorageDir(absolute, std::move(dir), std::move(lock)));
}

absl::StatusOr<UniqueFd> StorageDir::CreateFile(const std::string& name) const {
  UniqueFd fd(
      openat(dir_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return IoError("create", errno);
  return fd;
}

absl::StatusOr<UniqueFd> StorageDir::OpenFile(const std::string& name) const {
  UniqueFd fd(openat(dir_.get(), name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return IoError("open", errno);
  return fd;
}

int64_t StorageDir::SizeOf(const std::string& name) const {
  struct stat facts {};
  if (fstatat(dir_.get(), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) return -1;
  return S_ISREG(facts.st_mode) ? facts.st_size : -1;
}

absl::StatusOr<std::string> StorageDir::Read(const std::string& name, int64_t max_bytes) const {
  UniqueFd fd(openat(dir_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return IoError("open", errno);
  std::string bytes(static_cast<size_t>(max_bytes) + 1, '\0');
  size_t size = 0;
  while (size < bytes.size()) {
    const ssize_t got = read(fd.get(), bytes.data() + size, bytes.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("read", errno);
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > static_cast<size_t>(max_bytes)) return IoError("read", EFBIG);
  bytes.resize(size);
  return bytes;
}

absl::Status StorageDir::WriteAtomic(const std::string& name, absl::string_view bytes) const {
  const std::string temporary = name + kTemporarySuffix;
  Remove(temporary);
  VNSA_ASSIGN_OR_RETURN(const UniqueFd fd, CreateFile(temporary));
  VNSA_RETURN_IF_ERROR(WriteAll(fd.get(), bytes, 0));
  if (fsync(fd.get()) != 0) return IoError("sync", errno);
  return Rename(temporary, name);
}

absl::Status StorageDir::Rename(const std::string& from, const std::string& to) const {
  if (renameat(dir_.get(), from.c_str(), dir_.get(), to.c_str()) != 0) {
    return IoError("rename", errno);
  }
  return Sync();
}

void StorageDir::Remove(const std::string& name) const { unlinkat(dir_.get(), name.c_str(), 0); }

absl::Status StorageDir::Sync() const {
  if (fsync(dir_.get()) != 0) return IoError("sync", errno);
  return absl::OkStatus();
}

std::vector<std::string> StorageDir::List() const {
  std::vector<std::string> names;
  const int fd = openat(dir_.get(), ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
  DIR* dir = fd < 0 ? nullptr : fdopendir(fd);
  if (dir == nullptr) return names;
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != kLockName && SizeOf(name) >= 0) names.push_back(name);
  }
  closedir(dir);
  return names;
}

StorageDir::Space StorageDir::FreeSpace() const {
  struct statvfs facts {};
  if (fstatvfs(dir_.get(), &facts) != 0) return {};
  const auto unit = static_cast<int64_t>(facts.f_frsize);
  return {static_cast<int64_t>(facts.f_blocks) * unit, static_cast<int64_t>(facts.f_bavail) * unit};
}

absl::Status WriteAll(int fd, absl::string_view data, int64_t offset) {
  while (!data.empty()) {
    const ssize_t put = pwrite(fd, data.data(), data.size(), offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return IoError("write", errno);
    data.remove_prefix(static_cast<size_t>(put));
    offset += put;
  }
  return absl::OkStatus();
}

}  // namespace videonsa
