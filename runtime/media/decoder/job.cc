#include "runtime/media/decoder/job.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/media/decoder/channel.h"
#include "runtime/media/decoder/clip.h"
#include "runtime/media/decoder/frame_reader.h"
#include "runtime/media/decoder/frame_writer.h"
#include "runtime/media/decoder/picture.h"
#include "runtime/media/decoder/reference_order.h"
#include "runtime/media/decoder/ring.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavutil/frame.h>
#include <libavutil/imgutils.h>
}

namespace videonsa::decoder {
namespace {

// Compressed pictures above this are refused.
constexpr int64_t kMaxPictureBytes = int64_t{64} << 20;
constexpr uint32_t kMaxFrames = 1u << 20;

// The server went away or sent what it must not: the process ends.
enum class Outcome { kNextJob, kQuit };

class Job {
 public:
  Job(int socket, const OpenBody& open, int input)
      : socket_(socket), open_(open), input_(input), clip_(&input_) {}

  Outcome Run();

 private:
  std::optional<ErrorBody> OpenMedia();
  std::optional<ErrorBody> ReadPicture();
  std::optional<ErrorBody> SendFrames();
  std::optional<ErrorBody> SendPicture();
  std::optional<ErrorBody> FillTimes(std::vector<int64_t>* wanted);
  bool WriteFrame(uint32_t sequence, const AVFrame& frame);
  bool WaitForSlot(uint32_t* slot);
  bool SendSlot(uint32_t sequence, uint32_t slot, uint64_t bytes);
  Outcome Fail(const ErrorBody& error);

  const int socket_;
  const OpenBody open_;
  Input input_;
  Clip clip_;
  Picture picture_;
  Ring ring_;
  FactsBody facts_{};
  SampleBody sample_{};
  std::unique_ptr<FrameWriter> writer_;
  std::optional<ErrorBody> write_error_;
  bool lost_ = false;  // the server is gone
  DoneBody counts_{};
};

Outcome Job::Run() {
  if (auto error = OpenMedia()) return Fail(*error);
  Message facts;
  facts.type = MessageType::kFacts;
  facts.facts = facts_;
  if (!SendMessage(socket_, facts)) return Outcome::kQuit;
  Message request;
  int ring = -1;
  if (ReceiveMessage(socket_, &request, &ring) != ReceiveResult::kMessage) return Outcome::kQuit;
  if (request.type == MessageType::kClose) return Outcome::kNextJob;
  if (request.type != MessageType::kSample || ring < 0) return Outcome::kQuit;
  sample_ = request.sample;
  if (sample_.num_frames > kMaxFrames || !ring_.Map(ring, sample_)) return Outcome::kQuit;
  const auto error = open_.kind == MediaKind::kImage ? SendPicture() : SendFrames();
  if (lost_) return Outcome::kQuit;
  if (error) return Fail(*error);
  Message done;
  done.type = MessageType::kDone;
  done.done = counts_;
  return SendMessage(socket_, done) ? Outcome::kNextJob : Outcome::kQuit;
}

Outcome Job::Fail(const ErrorBody& error) {
  Message message;
  message.type = MessageType::kError;
  message.error = error;
  return SendMessage(socket_, message) ? Outcome::kNextJob : Outcome::kQuit;
}

std::optional<ErrorBody> Job::OpenMedia() {
  if (open_.kind == MediaKind::kImage) return ReadPicture();
  if (auto error = clip_.Open(open_)) return error;
  facts_ = clip_.facts();
  return std::nullopt;
}

std::optional<ErrorBody> Job::ReadPicture() {
  const int64_t size = input_.size();
  if (size == 0) return ErrorBody{Failure::kEmpty, 0, 0};
  std::vector<uint8_t> bytes(kSignatureBytes);
  bytes.resize(std::max<int64_t>(input_.ReadAt(0, bytes.data(), kSignatureBytes), 0));
  if (!IsPicture(bytes)) return ErrorBody{Failure::kContainer, 0, 0};
  if (size > kMaxPictureBytes) return ErrorBody{Failure::kPixels, size, kMaxPictureBytes};
  bytes.resize(std::max<int64_t>(size, 0));
  if (input_.ReadAt(0, bytes.data(), size) != size) return ErrorBody{Failure::kCorrupt, 0, 0};
  if (auto error = DecodePicture(bytes, {open_.max_pixels}, &picture_)) return error;
  if (open_.alpha_on_white) BlendOnWhite(&picture_);
  if (open_.jpeg_again) {
    if (auto error = JpegAgain(&picture_)) return error;
  }
  std::strncpy(facts_.container, picture_.format, sizeof(facts_.container) - 1);
  std::strncpy(facts_.codec, picture_.format, sizeof(facts_.codec) - 1);
  facts_.width = picture_.width;
  facts_.height = picture_.height;
  facts_.num_streams = 1;
  facts_.num_packets = 1;
  facts_.rgb_bytes = facts_.native_bytes = picture_.rgb.size();
  return std::nullopt;
}

// Reads the wanted indices and writes their times, both in the shared table.
std::optional<ErrorBody> Job::FillTimes(std::vector<int64_t>* wanted) {
  const auto count = static_cast<int64_t>(clip_.packets().size());
  const DecodePlan order = MakeDecodePlan(clip_.packets(), {}, false);
  for (FrameTime& entry : ring_.table()) {
    const int64_t index = entry.index;
    const bool ascending = wanted->empty() || wanted->back() < index;
    if (index < 0 || index >= count || !ascending) {
      return ErrorBody{Failure::kProtocol, index, count};
    }
    wanted->push_back(index);
    int64_t time = 0;
    if (order.by_pts) {
      time = clip_.TimeUs(order.sorted_pts[index]);
    } else if (facts_.fps_num > 0 && facts_.fps_den > 0) {
      time =
          static_cast<int64_t>(1e6 * static_cast<double>(index) * facts_.fps_den / facts_.fps_num);
    }
    entry.time_us = time;
  }
  const ReferenceReading reading{clip_.packets(), order.sorted_pts};
  const bool shows_leading = clip_.codec() && clip_.codec()->id != AV_CODEC_ID_HEVC;
  if (open_.reference_order && sample_.num_slots > 0 && order.by_pts && clip_.is_mov() &&
      MissesFrames(clip_.packets(), shows_leading)) {
    *wanted = ReferenceFrames(reading, *wanted, [&](int64_t pts, bool backward) {
      return clip_.SeekNear(pts, backward);
    });
  }
  return std::nullopt;
}

std::optional<ErrorBody> Job::SendFrames() {
  std::vector<int64_t> wanted;
  if (auto error = FillTimes(&wanted)) return error;
  if (sample_.num_slots == 0 || wanted.empty()) return std::nullopt;
  const bool turned = facts_.rotation % 180 != 0;
  writer_ = std::make_unique<FrameWriter>(turned ? facts_.height : facts_.width,
                                          turned ? facts_.width : facts_.height, facts_.rotation);
  const bool native = sample_.format == PixelFormat::kNative;
  if (sample_.slot_bytes < (native ? facts_.native_bytes : facts_.rgb_bytes) + kSlotSlack) {
    return ErrorBody{Failure::kProtocol, static_cast<int64_t>(sample_.slot_bytes), 0};
  }
  FrameReader reader(&clip_, std::move(wanted), [&](uint32_t sequence, const AVFrame& frame) {
    return WriteFrame(sequence, frame);
  });
  const auto error = reader.Run(static_cast<int>(open_.threads), open_.max_pixels);
  counts_.frames_decoded = reader.frames_decoded();
  return write_error_ ? write_error_ : error;
}

bool Job::WriteFrame(uint32_t sequence, const AVFrame& frame) {
  uint32_t slot;
  if (!WaitForSlot(&slot)) {
    lost_ = true;
    return false;
  }
  uint64_t bytes = facts_.rgb_bytes;
  bool written = false;
  if (sample_.format == PixelFormat::kNative) {
    const int copied = av_image_copy_to_buffer(
        ring_.slot(slot), static_cast<int>(std::min<uint64_t>(sample_.slot_bytes, INT32_MAX)),
        frame.data, frame.linesize, static_cast<AVPixelFormat>(frame.format), frame.width,
        frame.height, 1);
    written = copied > 0;
    bytes = std::max(copied, 0);
  } else {
    written = writer_->WriteRgb(frame, ring_.slot(slot));
  }
  if (!written) {
    write_error_ = ErrorBody{Failure::kPixelFormat, frame.format, 0};
    return false;
  }
  ++counts_.frames_converted;
  lost_ = !SendSlot(sequence, slot, bytes);
  return !lost_;
}

std::optional<ErrorBody> Job::SendPicture() {
  uint32_t slot;
  if (sample_.num_frames == 0 || sample_.num_slots == 0) return std::nullopt;
  if (sample_.slot_bytes < picture_.rgb.size() || sample_.num_frames != 1 ||
      !ring_.TakeFree(&slot)) {
    return ErrorBody{Failure::kProtocol, static_cast<int64_t>(sample_.slot_bytes), 0};
  }
  std::memcpy(ring_.slot(slot), picture_.rgb.data(), picture_.rgb.size());
  counts_ = {1, 1};
  lost_ = !SendSlot(0, slot, picture_.rgb.size());
  return std::nullopt;
}

bool Job::WaitForSlot(uint32_t* slot) {
  while (!ring_.TakeFree(slot)) {
    Message message;
    int fd = -1;
    if (ReceiveMessage(socket_, &message, &fd) != ReceiveResult::kMessage) return false;
    if (fd >= 0) close(fd);
    if (message.type != MessageType::kSlotFree || !ring_.Free(message.slot.slot)) return false;
  }
  return true;
}

bool Job::SendSlot(uint32_t sequence, uint32_t slot, uint64_t bytes) {
  Message message;
  message.type = MessageType::kFrame;
  message.frame = {sequence, slot, bytes};
  return SendMessage(socket_, message);
}

}  // namespace

void ServeJobs(int socket) {
  Message hello;
  hello.type = MessageType::kHello;
  hello.version = kWireVersion;
  if (!SendMessage(socket, hello)) return;
  while (true) {
    Message message;
    int input = -1;
    if (ReceiveMessage(socket, &message, &input) != ReceiveResult::kMessage) return;
    if (message.type == MessageType::kSlotFree && input < 0) continue;  // late, of the last job
    if (message.type != MessageType::kOpen || input < 0) return;
    Job job(socket, message.open, input);
    if (job.Run() == Outcome::kQuit) return;
  }
}

}  // namespace videonsa::decoder
