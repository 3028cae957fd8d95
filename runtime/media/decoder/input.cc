#include "runtime/media/decoder/input.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

extern "C" {
#include <libavformat/avformat.h>
#include <libavformat/avio.h>
}

namespace videonsa::decoder {
namespace {
constexpr int kBufferBytes = 256 * 1024;
}

Input::Input(int fd) : fd_(fd) {
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) size_ = info.st_size;
}

Input::~Input() { close(fd_); }

int64_t Input::ReadAt(int64_t offset, void* out, int64_t count) const {
  int64_t done = 0;
  while (done < count) {
    const ssize_t got = pread(fd_, static_cast<char*>(out) + done, count - done, offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += got;
  }
  return done;
}

AVIOContext* Input::NewReader() {
  position_ = 0;
  auto* buffer = static_cast<unsigned char*>(av_malloc(kBufferBytes));
  if (!buffer) return nullptr;
  AVIOContext* reader =
      avio_alloc_context(buffer, kBufferBytes, 0, this, &Input::ReadPacket, nullptr, &Input::Seek);
  if (!reader) av_free(buffer);
  return reader;
}

void Input::FreeReader(AVIOContext* reader) {
  if (!reader) return;
  av_freep(&reader->buffer);
  avio_context_free(&reader);
}

int Input::ReadPacket(void* self, uint8_t* out, int count) {
  auto* input = static_cast<Input*>(self);
  const int64_t got = input->ReadAt(input->position_, out, count);
  if (got < 0) return AVERROR(EIO);
  if (got == 0) return AVERROR_EOF;
  input->position_ += got;
  return static_cast<int>(got);
}

int64_t Input::Seek(void* self, int64_t offset, int whence) {
  auto* input = static_cast<Input*>(self);
  int64_t target = offset;
  switch (whence & ~AVSEEK_FORCE) {
    case AVSEEK_SIZE:
      return input->size_;
    case SEEK_SET:
      break;
    case SEEK_CUR:
      target += input->position_;
      break;
    case SEEK_END:
      target += input->size_;
      break;
    default:
      return AVERROR(EINVAL);
  }
  if (target < 0) return AVERROR(EINVAL);
  input->position_ = target;
  return target;
}

}  // namespace videonsa::decoder
