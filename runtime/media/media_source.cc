#include "runtime/media/media_source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

bool WriteAll(int fd, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t wrote = write(fd, bytes.data() + done, bytes.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    done += wrote;
  }
  return true;
}

}  // namespace

absl::StatusOr<OwnedFd> OpenSource(const MediaSource& source) {
  if (!source.bytes) {
    OwnedFd file(open(source.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (file.get() >= 0) return file;
    return MakeError(absl::StatusCode::kNotFound, "CLIP_NOT_FOUND",
                     absl::StrCat("the stored media cannot be opened: errno ", errno));
  }
  OwnedFd memory(memfd_create("videonsa-media", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memory.get() < 0 || !WriteAll(memory.get(), *source.bytes) ||
      fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) !=
          0) {
    return MakeError(absl::StatusCode::kUnavailable, "OUT_OF_MEMORY",
                     absl::StrCat("no memory for ", source.bytes->size(), " bytes of media"));
  }
  return memory;
}

}  // namespace videonsa
