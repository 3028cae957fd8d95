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
#include "runtime/media/decoder_launch.h"
#include "runtime/media/media_loader.h"
#include "runtime/media/owned_fd.h"
#include "runtime/telemetry/metric_sets.h"

namespace videonsa {

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
  /// Starts `binary`. Errors: as LaunchDecoder.
  static absl::StatusOr<std::unique_ptr<DecoderProcess>> Start(const std::string& binary,
                                                               const DecoderLimits& limits = {});
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

  /// Alive and never given a clip: one process reads one clip, so that nothing of a hostile one
  /// meets the next.
  bool Fresh();
  bool Alive();
  pid_t pid() const { return pid_; }
  void Kill();
  /// Why it ended, or will when it is killed now: of its own account, or because of what the server
  /// saw in it.
  DecoderExit exit() const { return exit_; }

 private:
  struct RingMemory;

  DecoderProcess(pid_t pid, OwnedFd socket);
  absl::Status Receive(decoder::Message* message, const DecodeLimits& limits);
  absl::Status Died();
  absl::Status BrokeProtocol(const char* what);
  absl::Status Failed(const decoder::ErrorBody& error);
  void Reap(bool kill_first);
  absl::Status CheckFacts(const decoder::FactsBody& facts, const decoder::OpenBody& open);

  pid_t pid_;
  OwnedFd socket_;
  bool ready_ = false;
  bool in_job_ = false;
  bool used_ = false;
  DecoderExit exit_ = DecoderExit::kOk;
  decoder::OpenBody open_{};
  decoder::FactsBody facts_{};
  decoder::DoneBody counts_{};
  std::unique_ptr<RingMemory> ring_;
};

}  // namespace videonsa
