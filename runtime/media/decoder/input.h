#pragma once

#include <cstdint>

struct AVIOContext;

namespace videonsa::decoder {

/// Reads a job's descriptor from any offset; the only way media bytes get in. Owns the descriptor.
///
/// Threads: one at a time.
class Input {
 public:
  explicit Input(int fd);
  ~Input();
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  /// Bytes of the file, or -1 if it is not a regular one.
  int64_t size() const { return size_; }
  /// Reads up to `count` bytes at `offset`; fewer at the end, -1 on an error.
  int64_t ReadAt(int64_t offset, void* out, int64_t count) const;
  /// A libav reader over this input, from its start. The caller frees it by FreeReader.
  AVIOContext* NewReader();
  static void FreeReader(AVIOContext* reader);

 private:
  static int ReadPacket(void* self, uint8_t* out, int count);
  static int64_t Seek(void* self, int64_t offset, int whence);

  const int fd_;
  int64_t size_ = -1;
  int64_t position_ = 0;
};

}  // namespace videonsa::decoder
