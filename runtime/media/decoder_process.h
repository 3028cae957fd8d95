#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/media/decoder/wire.h"
#include "runtime/media/media_loader.h"

namespace videonsa {

/// A file descriptor that is closed with its owner.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  ~OwnedFd() { Reset(); }
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.Release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = other.Release();
    }
    return *this;
  }
  int get() const { return fd_; }
  int Release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void Reset();

 private:
  int fd_ = -1;
};

/// When to stop waiting for a decoder.
struct DecodeLimits {
  const LoadControl* control = nullptr;
  absl::Duration deadline = absl::InfiniteDuration();  ///< of the request, monotonic
  absl::Duration timeout = absl::InfiniteDuration();   ///< of the decoder, monotonic
};

/// The server's side of one videonsa-decoder: starts it, speaks the protocol, believes nothing.
///
/// Every field that comes back is checked against what was asked; a decoder that breaks the
/// protocol, dies or is too slow is killed, and the load ends with a typed error.
///
/// Threads: one at a time.
class DecoderProcess {
 public:
  /// Starts `binary`. Errors: FAILED_PRECONDITION if it cannot be started.
  static absl::StatusOr<std::unique_ptr<DecoderProcess>> Start(const std::string& binary);
  /// Kills the process.
  ~DecoderProcess();
  DecoderProcess(const DecoderProcess&) = delete;
  DecoderProcess& operator=(const DecoderProcess&) = delete;

  /// Waits until the process has said hello.
  absl::Status AwaitReady(const DecodeLimits& limits);

  /// Hands over `input` and returns what the decoder found in it.
  absl::StatusOr<decoder::FactsBody> Open(const decoder::OpenBody& open, int input,
                                          const DecodeLimits& limits);
  /// Ends a job after Open without frames.
  void CloseJob();

  struct Frame {
    uint32_t sequence = 0;
    uint32_t slot = 0;
    const uint8_t* pixels = nullptr;  ///< valid until Release
    uint64_t bytes = 0;
  };
  /// Asks for the frames at `indices` (ascending) in `num_slots` slots; 0 slots: times only.
  absl::Status Sample(const std::vector<int64_t>& indices, int num_slots,
                      decoder::PixelFormat format, const DecodeLimits& limits);
  /// The next frame in order, or nothing when all have come (then the process is free again).
  absl::StatusOr<std::optional<Frame>> NextFrame(const DecodeLimits& limits);
  /// Gives the frame's slot back.
  void Release(const Frame& frame);
  /// Times since the first frame, one an index; valid after the first NextFrame.
  std::vector<absl::Duration> FrameTimes() const;
  const decoder::DoneBody& counts() const { return counts_; }

  /// Alive and between two jobs: may be used again.
  bool Reusable();
  bool Alive();
  pid_t pid() const { return pid_; }
  void Kill();

 private:
  struct RingMemory;

  DecoderProcess(pid_t pid, OwnedFd socket);
  absl::Status Receive(decoder::Message* message, const DecodeLimits& limits);
  absl::Status Died();
  absl::Status BrokeProtocol(const char* what);
  absl::Status CheckFacts(const decoder::FactsBody& facts, const decoder::OpenBody& open);

  pid_t pid_;
  OwnedFd socket_;
  bool ready_ = false;
  bool in_job_ = false;
  decoder::OpenBody open_{};
  decoder::FactsBody facts_{};
  decoder::DoneBody counts_{};
  std::unique_ptr<RingMemory> ring_;
};

}  // namespace videonsa
