#include "runtime/media/decoder_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/media/decoder/channel.h"
#include "runtime/media/decoder_error.h"

namespace videonsa {

using decoder::FrameTime;
using decoder::Message;
using decoder::MessageType;

namespace {

constexpr absl::Duration kCancelPoll = absl::Milliseconds(10);
constexpr absl::Duration kRetryAfter = absl::Seconds(1);

absl::Status StartFailed(int error) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "DECODER_NOT_STARTED",
                   absl::StrCat("no socket for videonsa-decoder: errno ", error));
}

// Whether the process ends by itself within a moment.
bool EndsSoon(pid_t pid) {
  constexpr int kTries = 50;
  for (int i = 0; i < kTries; ++i) {
    siginfo_t info{};
    if (waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
      return true;
    }
    usleep(1000);
  }
  return false;
}

// What the end of a process that nobody killed says.
DecoderExit ExitOf(int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) return DecoderExit::kSeccomp;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU) return DecoderExit::kCpuLimit;
  return DecoderExit::kSignal;
}

}  // namespace

// The shared memory of a job and what is known about its slots.
struct DecoderProcess::RingMemory {
  ~RingMemory() {
    if (base) munmap(base, bytes);
  }
  uint8_t* base = nullptr;
  uint64_t bytes = 0;
  uint64_t slot_bytes = 0;
  uint64_t frame_bytes = 0;  // exact bytes of a frame
  uint32_t num_frames = 0;
  uint32_t next_sequence = 0;
  std::vector<bool> held;  // slots that the server reads
};

DecoderProcess::DecoderProcess(pid_t pid, OwnedFd socket) : pid_(pid), socket_(std::move(socket)) {}

DecoderProcess::~DecoderProcess() { Kill(); }

absl::StatusOr<std::unique_ptr<DecoderProcess>> DecoderProcess::Start(const std::string& binary,
                                                                      const DecoderLimits& limits) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return StartFailed(errno);
  OwnedFd ours(pair[0]);
  const OwnedFd theirs(pair[1]);
  VNSA_ASSIGN_OR_RETURN(const pid_t pid, LaunchDecoder(binary, theirs.get(), limits));
  return std::unique_ptr<DecoderProcess>(new DecoderProcess(pid, std::move(ours)));
}

void DecoderProcess::Kill() {
  socket_.Reset();
  if (pid_ >= 0) Reap(true);
}

void DecoderProcess::Reap(bool kill_first) {
  if (kill_first) kill(pid_, SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (!kill_first && exit_ == DecoderExit::kOk) exit_ = ExitOf(status);
}

bool DecoderProcess::Alive() {
  if (pid_ < 0) return false;
  siginfo_t info{};
  const int result = waitid(P_PID, pid_, &info, WEXITED | WNOHANG | WNOWAIT);
  return result == 0 && info.si_pid == 0;
}

bool DecoderProcess::Fresh() { return !used_ && Alive(); }

absl::Status DecoderProcess::Died() {
  // Its socket is closed, so it has ended or will in no time; if it only closed the socket, it is
  // made to.
  if (pid_ >= 0) {
    const bool closed_only = !EndsSoon(pid_);
    if (closed_only) exit_ = DecoderExit::kProtocol;
    Reap(closed_only);
  }
  socket_.Reset();
  return MakeError(absl::StatusCode::kUnavailable,
                   ErrorInfo{.reason = "DECODER_DIED", .retry_after = kRetryAfter},
                   "the decoder process ended in the middle of the clip");
}

absl::Status DecoderProcess::BrokeProtocol(const char* what) {
  exit_ = DecoderExit::kProtocol;
  Kill();
  return MakeError(
      absl::StatusCode::kUnavailable,
      ErrorInfo{
          .reason = "DECODER_DIED", .metadata = {{"protocol", what}}, .retry_after = kRetryAfter},
      absl::StrCat("the decoder process broke its protocol: ", what));
}

absl::Status DecoderProcess::Failed(const decoder::ErrorBody& error) {
  in_job_ = false;
  if (error.failure == decoder::Failure::kMemory) exit_ = DecoderExit::kMemoryLimit;
  return ErrorOfFailure(error);
}

absl::Status DecoderProcess::Receive(Message* message, const DecodeLimits& limits) {
  const Clock& clock = Clock::Real();
  if (pid_ < 0) return Died();
  while (true) {
    if (limits.control && limits.control->cancelled && limits.control->cancelled->load()) {
      Kill();
      return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "the request was cancelled");
    }
    const absl::Duration now = clock.Monotonic();
    if (now >= limits.deadline) {
      Kill();
      return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                       "the deadline passed while the clip was being decoded");
    }
    if (now >= limits.timeout) {
      exit_ = DecoderExit::kWallLimit;
      Kill();
      return MakeError(absl::StatusCode::kInvalidArgument, "MEDIA_TOO_LARGE",
                       "decoding took longer than the server allows");
    }
    const absl::Duration wait =
        std::min({kCancelPoll, limits.deadline - now, limits.timeout - now});
    pollfd poller{socket_.get(), POLLIN, 0};
    const int ready = poll(&poller, 1, static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1);
    if (ready < 0 && errno != EINTR) return Died();
    if (ready > 0) break;
  }
  int fd = -1;
  const auto result = decoder::ReceiveMessage(socket_.get(), message, &fd);
  OwnedFd unwanted(fd);
  if (result == decoder::ReceiveResult::kClosed) return Died();
  if (result == decoder::ReceiveResult::kInvalid) return BrokeProtocol("message size or magic");
  if (fd >= 0) return BrokeProtocol("descriptor");
  return absl::OkStatus();
}

absl::Status DecoderProcess::AwaitReady(const DecodeLimits& limits) {
  if (ready_) return absl::OkStatus();
  Message hello;
  VNSA_RETURN_IF_ERROR(Receive(&hello, limits));
  if (hello.type != MessageType::kHello || hello.version != decoder::kWireVersion) {
    return BrokeProtocol("hello");
  }
  ready_ = true;
  return absl::OkStatus();
}

absl::StatusOr<decoder::FactsBody> DecoderProcess::Open(const decoder::OpenBody& open, int input,
                                                        const DecodeLimits& limits) {
  VNSA_RETURN_IF_ERROR(AwaitReady(limits));
  VNSA_CHECK(!in_job_);
  in_job_ = used_ = true;
  open_ = open;
  Message request;
  request.type = MessageType::kOpen;
  request.open = open;
  if (!decoder::SendMessage(socket_.get(), request, input)) return Died();
  Message reply;
  VNSA_RETURN_IF_ERROR(Receive(&reply, limits));
  if (reply.type == MessageType::kError) return Failed(reply.error);
  if (reply.type != MessageType::kFacts) return BrokeProtocol("no facts");
  VNSA_RETURN_IF_ERROR(CheckFacts(reply.facts, open));
  facts_ = reply.facts;
  return facts_;
}

absl::Status DecoderProcess::CheckFacts(const decoder::FactsBody& facts,
                                        const decoder::OpenBody& open) {
  const bool named = std::memchr(facts.container, 0, sizeof(facts.container)) &&
                     std::memchr(facts.codec, 0, sizeof(facts.codec));
  if (!named) return BrokeProtocol("names");
  if (facts.width <= 0 || facts.height <= 0 ||
      int64_t{facts.width} * facts.height > open.max_pixels) {
    return BrokeProtocol("frame size");
  }
  if (facts.rgb_bytes != uint64_t{3} * facts.width * facts.height) return BrokeProtocol("bytes");
  // No pixel format needs more than 16 bytes a pixel.
  if (facts.native_bytes > uint64_t{16} * open.max_pixels) return BrokeProtocol("native bytes");
  if (facts.num_packets <= 0 || facts.num_packets > open.max_packets) {
    return BrokeProtocol("packets");
  }
  if (facts.duration_us < 0 || facts.duration_us / 1000 > open.max_duration_ms) {
    return BrokeProtocol("duration");
  }
  if (facts.fps_num < 0 || facts.fps_den < 0) return BrokeProtocol("rate");
  return absl::OkStatus();
}

void DecoderProcess::CloseJob() {
  Message request;
  request.type = MessageType::kClose;
  if (decoder::SendMessage(socket_.get(), request)) in_job_ = false;
}

absl::Status DecoderProcess::Sample(const std::vector<int64_t>& indices, int num_slots,
                                    decoder::PixelFormat format, const DecodeLimits& limits) {
  VNSA_CHECK(in_job_);
  VNSA_CHECK_GE(num_slots, 0);
  auto ring = std::make_unique<RingMemory>();
  const bool native = format == decoder::PixelFormat::kNative;
  ring->frame_bytes = native ? facts_.native_bytes : facts_.rgb_bytes;
  ring->slot_bytes = (ring->frame_bytes + decoder::kSlotSlack + decoder::kPageBytes - 1) /
                     decoder::kPageBytes * decoder::kPageBytes;
  ring->num_frames = static_cast<uint32_t>(indices.size());
  ring->bytes = decoder::RingBytes(indices.size(), num_slots, ring->slot_bytes);
  ring->held.assign(num_slots, false);
  OwnedFd memory(memfd_create("videonsa-frames", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  void* base = MAP_FAILED;
  // Sealed before it is handed over: a decoder cannot shrink it under our reads.
  if (memory.get() >= 0 && ftruncate(memory.get(), ring->bytes) == 0 &&
      fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
    base = mmap(nullptr, ring->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  }
  if (base == MAP_FAILED) {
    Kill();
    return MakeError(absl::StatusCode::kUnavailable,
                     ErrorInfo{.reason = "OUT_OF_MEMORY", .retry_after = kRetryAfter},
                     absl::StrCat("no shared memory for ", ring->bytes, " bytes of frames"));
  }
  ring->base = static_cast<uint8_t*>(base);
  auto* table = reinterpret_cast<FrameTime*>(ring->base);
  for (size_t i = 0; i < indices.size(); ++i) table[i] = {indices[i], 0};
  Message request;
  request.type = MessageType::kSample;
  request.sample = {ring->num_frames, static_cast<uint32_t>(num_slots), ring->slot_bytes,
                    ring->bytes, format};
  ring_ = std::move(ring);
  if (!decoder::SendMessage(socket_.get(), request, memory.get())) return Died();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<DecoderProcess::Frame>> DecoderProcess::NextFrame(
    const DecodeLimits& limits) {
  VNSA_CHECK(in_job_ && ring_);
  Message reply;
  VNSA_RETURN_IF_ERROR(Receive(&reply, limits));
  RingMemory& ring = *ring_;
  switch (reply.type) {
    case MessageType::kError:
      return Failed(reply.error);
    case MessageType::kDone:
      if (!ring.held.empty() && ring.next_sequence != ring.num_frames) {
        return BrokeProtocol("done early");
      }
      in_job_ = false;
      counts_ = reply.done;
      return std::optional<Frame>();
    case MessageType::kFrame:
      break;
    default:
      return BrokeProtocol("message type");
  }
  const decoder::FrameBody& frame = reply.frame;
  const bool expected = frame.sequence == ring.next_sequence && frame.sequence < ring.num_frames &&
                        frame.slot < ring.held.size() && !ring.held[frame.slot] &&
                        frame.bytes == ring.frame_bytes;
  if (!expected) return BrokeProtocol("frame");
  ring.held[frame.slot] = true;
  ++ring.next_sequence;
  const uint8_t* pixels =
      ring.base + decoder::TableBytes(ring.num_frames) + frame.slot * ring.slot_bytes;
  return std::optional<Frame>(Frame{frame.sequence, frame.slot, pixels, frame.bytes});
}

void DecoderProcess::Release(const Frame& frame) {
  VNSA_CHECK(ring_->held[frame.slot]);
  ring_->held[frame.slot] = false;
  Message message;
  message.type = MessageType::kSlotFree;
  message.slot.slot = frame.slot;
  decoder::SendMessage(socket_.get(), message);  // if it fails, the next receive says so
}

std::vector<absl::Duration> DecoderProcess::FrameTimes() const {
  VNSA_CHECK(ring_ != nullptr);
  std::vector<absl::Duration> times;
  const auto* table = reinterpret_cast<const volatile FrameTime*>(ring_->base);
  const int64_t limit_us = open_.max_duration_ms * 1000;
  for (uint32_t i = 0; i < ring_->num_frames; ++i) {
    const int64_t time_us = table[i].time_us;
    times.push_back(absl::Microseconds(std::clamp<int64_t>(time_us, 0, limit_us)));
  }
  return times;
}

}  // namespace videonsa
