#include "runtime/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

// Real path of `path`, or empty.
std::string RealPath(const std::string& path) {
  char* resolved = realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return "";
  std::string result = resolved;
  free(resolved);
  return result;
}

// A link is allowed when it stays in the folder.
bool StaysInside(const std::string& dir, const std::string& path) {
  const std::string real_dir = RealPath(dir);
  const std::string real_path = RealPath(path);
  return !real_dir.empty() && absl::StartsWith(real_path, real_dir + "/");
}

}  // namespace

absl::Status ModelInvalid(absl::string_view file, absl::string_view tensor,
                          absl::string_view message) {
  ErrorInfo info;
  info.reason = "MODEL_INVALID";
  info.metadata.emplace_back("file", std::string(file));
  if (!tensor.empty()) info.metadata.emplace_back("tensor", std::string(tensor));
  std::string text(file);
  if (!tensor.empty()) absl::StrAppend(&text, text.empty() ? "" : ", ", "tensor ", tensor);
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info),
                   absl::StrCat("model: ", text, ": ", message));
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& dir, const std::string& name) {
  const std::string path = dir + "/" + name;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ModelInvalid(name, "", absl::StrCat("cannot open: ", strerror(errno)));
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return ModelInvalid(name, "", "not a regular file");
  }
  if (!StaysInside(dir, path)) {
    close(fd);
    return ModelInvalid(name, "", "link leads out of the model folder");
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      close(fd);
      return ModelInvalid(name, "", absl::StrCat("cannot map ", size, " bytes"));
    }
  }
  close(fd);
  return MappedFile(name, data, size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : name_(std::move(other.name_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace videonsa
