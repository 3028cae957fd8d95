#include "runtime/media/decoder/clip.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/avstring.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
}

namespace videonsa::decoder {

// Decoder names, not codec names: AV1 is libdav1d.
const char kAllowedCodecs[] = "h264,hevc,vp8,vp9,libdav1d,mpeg4,h263,mpeg2video,flv,gif";

namespace {

constexpr char kAllowedContainers[] =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,flv,live_flv,gif";

ErrorBody Fail(Failure failure, int64_t value = 0, int64_t limit = 0) {
  return ErrorBody{failure, value, limit};
}

int DenyOpen(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
  return AVERROR(EPERM);
}

bool IsEncrypted(const AVStream* stream) {
  return stream->codecpar->codec_tag == MKTAG('e', 'n', 'c', 'v');
}

// Whether the beginning of the file is that of a container we read.
bool LooksAllowed(const Input& input) {
  constexpr int kHeadBytes = 64 * 1024;
  std::vector<uint8_t> head(kHeadBytes + AVPROBE_PADDING_SIZE);
  const int64_t got = input.ReadAt(0, head.data(), kHeadBytes);
  AVProbeData probe{"", head.data(), static_cast<int>(std::max<int64_t>(got, 0)), nullptr};
  const AVInputFormat* format = av_probe_input_format(&probe, /*is_opened=*/1);
  return format && av_match_name(std::string(format->name, std::strcspn(format->name, ",")).c_str(),
                                 kAllowedContainers);
}

void CopyName(const char* name, char (&out)[16]) {
  const size_t length = std::min(std::strcspn(name, ","), sizeof(out) - 1);
  std::memcpy(out, name, length);
  out[length] = 0;
}

ErrorBody CodecFailure(const AVStream* stream) {
  ErrorBody error = Fail(Failure::kCodec);
  CopyName(avcodec_get_name(stream->codecpar->codec_id), error.name);
  return error;
}

// Clockwise turn that makes the frame upright, as the reference reads it: mirroring is not applied.
int RotationOf(const AVStream* stream) {
  size_t bytes = 0;
  const uint8_t* matrix = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &bytes);
  if (!matrix || bytes < 9 * sizeof(int32_t)) return 0;
  const double angle = -av_display_rotation_get(reinterpret_cast<const int32_t*>(matrix));
  if (!std::isfinite(angle)) return 0;
  const int turns = static_cast<int>(std::lround(angle / 90.0));
  if (std::abs(angle - turns * 90.0) > 1.0) return 0;
  return ((turns % 4) + 4) % 4 * 90;
}

// Options of the decoders that probing opens, one dictionary a stream.
class ProbeOptions {
 public:
  ProbeOptions(unsigned count, int64_t max_pixels) : options_(count, nullptr) {
    for (AVDictionary*& option : options_) {
      av_dict_set_int(&option, "max_pixels", max_pixels, 0);
      av_dict_set(&option, "threads", "1", 0);
    }
  }
  ~ProbeOptions() {
    for (AVDictionary*& option : options_) av_dict_free(&option);
  }
  AVDictionary** get() { return options_.empty() ? nullptr : options_.data(); }

 private:
  std::vector<AVDictionary*> options_;
};

}  // namespace

Clip::~Clip() { CloseContainer(); }

void Clip::CloseContainer() {
  if (!format_) return;
  AVIOContext* reader = format_->pb;
  avformat_close_input(&format_);
  Input::FreeReader(reader);
  stream_ = nullptr;
}

std::optional<ErrorBody> Clip::Open(const OpenBody& limits) {
  limits_ = limits;
  if (input_->size() == 0) return Fail(Failure::kEmpty);
  if (auto error = OpenContainer(limits)) return error;
  if (auto error = ChooseStream(limits)) return error;
  if (auto error = CountPackets(limits)) return error;
  FillFacts();
  const int64_t duration_ms = facts_.duration_us / 1000;
  if (duration_ms > limits.max_duration_ms) {
    return Fail(Failure::kDuration, duration_ms, limits.max_duration_ms);
  }
  return std::nullopt;
}

std::optional<ErrorBody> Clip::OpenContainer(const OpenBody& limits) {
  CloseContainer();
  AVIOContext* reader = input_->NewReader();
  format_ = reader ? avformat_alloc_context() : nullptr;
  if (!format_) {
    Input::FreeReader(reader);
    return Fail(Failure::kMemory);
  }
  format_->pb = reader;
  format_->flags |= AVFMT_FLAG_CUSTOM_IO;
  format_->io_open = &DenyOpen;
  format_->max_streams = static_cast<int>(limits.max_streams);
  AVDictionary* options = nullptr;
  av_dict_set(&options, "format_whitelist", kAllowedContainers, 0);
  av_dict_set(&options, "codec_whitelist", kAllowedCodecs, 0);
  av_dict_set(&options, "protocol_whitelist", "none", 0);
  const int opened = avformat_open_input(&format_, "", nullptr, &options);
  av_dict_free(&options);
  if (opened < 0) {
    Input::FreeReader(reader);  // libav freed the context, never a custom reader
    if (opened == AVERROR(ENOMEM)) return Fail(Failure::kMemory);
    return Fail(LooksAllowed(*input_) ? Failure::kCorrupt : Failure::kContainer);
  }
  if (format_->nb_streams > limits.max_streams) {
    return Fail(Failure::kStreams, format_->nb_streams, limits.max_streams);
  }
  for (unsigned i = 0; i < format_->nb_streams; ++i) {
    const AVCodecParameters* codec = format_->streams[i]->codecpar;
    const int64_t pixels = int64_t{codec->width} * codec->height;
    if (codec->codec_type == AVMEDIA_TYPE_VIDEO && pixels > limits.max_pixels) {
      return Fail(Failure::kPixels, pixels, limits.max_pixels);
    }
  }
  ProbeOptions probing(format_->nb_streams, limits.max_pixels);
  if (avformat_find_stream_info(format_, probing.get()) < 0) return Fail(Failure::kCorrupt);
  return std::nullopt;
}

std::optional<ErrorBody> Clip::ChooseStream(const OpenBody& limits) {
  const int chosen =
      av_find_best_stream(format_, AVMEDIA_TYPE_VIDEO, limits.stream, -1, &codec_, 0);
  if (chosen < 0) {
    const AVStream* video = nullptr;
    for (unsigned i = 0; i < format_->nb_streams; ++i) {
      if (IsEncrypted(format_->streams[i])) return Fail(Failure::kEncrypted);
      if (!video && format_->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_VIDEO) {
        video = format_->streams[i];
      }
    }
    return video ? CodecFailure(video) : Fail(Failure::kNoVideo);
  }
  stream_ = format_->streams[chosen];
  if (stream_->disposition & AV_DISPOSITION_ATTACHED_PIC) return Fail(Failure::kNoVideo);
  if (IsEncrypted(stream_)) return Fail(Failure::kEncrypted);
  if (av_match_name(codec_->name, kAllowedCodecs) <= 0) return CodecFailure(stream_);
  const AVCodecParameters* codec = stream_->codecpar;
  if (codec->width <= 0 || codec->height <= 0) return Fail(Failure::kCorrupt);
  const int64_t pixels = int64_t{codec->width} * codec->height;
  if (pixels > limits.max_pixels) return Fail(Failure::kPixels, pixels, limits.max_pixels);
  for (unsigned i = 0; i < format_->nb_streams; ++i) {
    if (static_cast<int>(i) != chosen) format_->streams[i]->discard = AVDISCARD_ALL;
  }
  const char* name = format_->iformat->name;
  is_mov_ = std::strncmp(name, "mov,", 4) == 0;
  trusts_key_flags_ = is_mov_ || std::strncmp(name, "matroska", 8) == 0;
  return std::nullopt;
}

std::optional<ErrorBody> Clip::CountPackets(const OpenBody& limits) {
  AVPacket* packet = av_packet_alloc();
  if (!packet) return Fail(Failure::kMemory);
  std::optional<ErrorBody> error;
  while (!error && ReadPacket(packet)) {
    packets_.push_back({packet->pts, packet->duration, (packet->flags & AV_PKT_FLAG_KEY) != 0,
                        (packet->flags & AV_PKT_FLAG_DISCARD) != 0});
    av_packet_unref(packet);
    const auto count = static_cast<int64_t>(packets_.size());
    if (count > limits.max_packets) error = Fail(Failure::kPackets, count, limits.max_packets);
  }
  av_packet_free(&packet);
  if (error) return error;
  if (packets_.empty()) return Fail(Failure::kNoFrames);
  return std::nullopt;
}

void Clip::FillFacts() {
  const AVCodecParameters* codec = stream_->codecpar;
  CopyName(format_->iformat->name, facts_.container);
  CopyName(avcodec_get_name(codec->codec_id), facts_.codec);
  facts_.rotation = RotationOf(stream_);
  const bool turned = facts_.rotation % 180 != 0;
  facts_.width = turned ? codec->height : codec->width;
  facts_.height = turned ? codec->width : codec->height;
  facts_.fps_num = stream_->avg_frame_rate.num;
  facts_.fps_den = stream_->avg_frame_rate.den;
  facts_.num_streams = format_->nb_streams;
  facts_.num_packets = static_cast<int64_t>(packets_.size());
  facts_.rgb_bytes = uint64_t{3} * codec->width * codec->height;
  const int native = av_image_get_buffer_size(static_cast<AVPixelFormat>(codec->format),
                                              codec->width, codec->height, 1);
  facts_.native_bytes = std::max(native, 0);
  int64_t first = INT64_MAX, end = INT64_MIN;
  for (const PacketInfo& packet : packets_) {
    if (packet.pts == AV_NOPTS_VALUE) continue;
    first = std::min(first, packet.pts);
    int64_t packet_end;
    if (__builtin_add_overflow(packet.pts, std::max<int64_t>(packet.duration, 0), &packet_end)) {
      packet_end = packet.pts;
    }
    end = std::max(end, packet_end);
  }
  first_pts_ = first == INT64_MAX ? 0 : first;
  facts_.duration_us = first == INT64_MAX ? 0 : TimeUs(end);
}

int64_t Clip::TimeUs(int64_t pts) const {
  int64_t since;
  if (__builtin_sub_overflow(pts, first_pts_, &since)) return INT64_MAX;
  return av_rescale_q(since, stream_->time_base, AVRational{1, 1'000'000});
}

bool Clip::Rewind() {
  // A container that was read to its end starts over most reliably when opened again.
  const int index = stream_->index;
  OpenBody limits = limits_;
  limits.stream = index;
  return !OpenContainer(limits) && !ChooseStream(limits);
}

int64_t Clip::SeekNear(int64_t pts, bool backward) {
  const int flags = backward ? AVSEEK_FLAG_BACKWARD : 0;
  if (av_seek_frame(format_, stream_->index, pts, flags) < 0) return -1;
  AVPacket* packet = av_packet_alloc();
  const bool read = packet && ReadPacket(packet);
  const int64_t found = read ? packet->pts : AV_NOPTS_VALUE;
  av_packet_free(&packet);
  const auto same = [&](const PacketInfo& info) { return info.pts == found; };
  const auto place = std::find_if(packets_.begin(), packets_.end(), same);
  return read && place != packets_.end() ? place - packets_.begin() : -1;
}

bool Clip::ReadPacket(AVPacket* packet) {
  while (av_read_frame(format_, packet) >= 0) {
    if (packet->stream_index == stream_->index) return true;
    av_packet_unref(packet);
  }
  return false;
}

}  // namespace videonsa::decoder
