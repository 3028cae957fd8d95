#include "runtime/media/decoder/frame_reader.h"

#include <algorithm>

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
}

namespace videonsa::decoder {
namespace {

// Frames that may wait for an earlier one: more than any codec reorders.
constexpr size_t kMaxWaiting = 20;

}  // namespace

void FrameDeleter::operator()(AVFrame* frame) const { av_frame_free(&frame); }

FrameReader::FrameReader(Clip* clip, std::vector<int64_t> wanted, TakeFrame take)
    : clip_(clip), wanted_(std::move(wanted)), take_(std::move(take)) {}

FrameReader::~FrameReader() { avcodec_free_context(&codec_); }

std::optional<ErrorBody> FrameReader::OpenCodec(int threads, int64_t max_pixels) {
  codec_ = avcodec_alloc_context3(clip_->codec());
  if (!codec_ || avcodec_parameters_to_context(codec_, clip_->stream()->codecpar) < 0) {
    return ErrorBody{Failure::kMemory, 0, 0};
  }
  codec_->pkt_timebase = clip_->stream()->time_base;
  codec_->thread_count = threads;
  codec_->thread_type = FF_THREAD_FRAME | FF_THREAD_SLICE;
  codec_->max_pixels = max_pixels;
  AVDictionary* options = nullptr;
  av_dict_set(&options, "codec_whitelist", kAllowedCodecs, 0);
  const int opened = avcodec_open2(codec_, clip_->codec(), &options);
  av_dict_free(&options);
  if (opened < 0) return ErrorBody{Failure::kPixelFormat, 0, 0};
  return std::nullopt;
}

std::optional<ErrorBody> FrameReader::Run(int threads, int64_t max_pixels) {
  plan_ = MakeDecodePlan(clip_->packets(), wanted_, clip_->trusts_key_flags());
  if (auto error = OpenCodec(threads, max_pixels)) return error;
  if (!clip_->Rewind()) return ErrorBody{Failure::kCorrupt, 0, 0};
  AVPacket* packet = av_packet_alloc();
  if (!packet) return ErrorBody{Failure::kMemory, 0, 0};
  std::optional<ErrorBody> error;
  for (size_t i = 0; !error && !done() && i < plan_.actions.size(); ++i) {
    if (!clip_->ReadPacket(packet)) break;
    if (plan_.restart[i] && fed_) {
      error = Drain();
      avcodec_flush_buffers(codec_);
      fed_ = false;
    }
    if (!error && plan_.actions[i] != DecodePlan::kSkip) {
      const bool wanted = plan_.actions[i] == DecodePlan::kWanted;
      codec_->skip_frame = wanted ? AVDISCARD_DEFAULT : AVDISCARD_NONREF;
      error = Feed(packet);
    }
    av_packet_unref(packet);
  }
  av_packet_free(&packet);
  if (!error && !done()) error = Drain();
  if (!error && !done()) HandOver(/*at_end=*/true);
  if (!error && !done()) error = ErrorBody{Failure::kNoFrames, 0, 0};
  return error;
}

std::optional<ErrorBody> FrameReader::Feed(AVPacket* packet) {
  fed_ = true;
  while (true) {
    const int sent = avcodec_send_packet(codec_, packet);
    if (sent == AVERROR(ENOMEM)) return ErrorBody{Failure::kMemory, 0, 0};
    if (sent < 0 && sent != AVERROR(EAGAIN)) {
      return ErrorBody{Failure::kCorrupt, frames_decoded_, 0};
    }
    if (auto error = TakeOutput()) return error;
    if (sent >= 0) return std::nullopt;
  }
}

std::optional<ErrorBody> FrameReader::Drain() {
  avcodec_send_packet(codec_, nullptr);
  if (auto error = TakeOutput()) return error;
  return held_ ? Place(std::move(held_), held_index_) : std::nullopt;
}

std::optional<ErrorBody> FrameReader::TakeOutput() {
  while (!done()) {
    FramePtr frame(av_frame_alloc());
    if (!frame) return ErrorBody{Failure::kMemory, 0, 0};
    const int got = avcodec_receive_frame(codec_, frame.get());
    if (got == AVERROR(EAGAIN) || got == AVERROR_EOF) return std::nullopt;
    if (got == AVERROR(ENOMEM)) return ErrorBody{Failure::kMemory, 0, 0};
    if (got < 0) return ErrorBody{Failure::kCorrupt, frames_decoded_, 0};
    ++frames_decoded_;
    if (auto error = Keep(std::move(frame))) return error;
  }
  return std::nullopt;
}

int64_t FrameReader::IndexOf(int64_t timestamp) const {
  const auto& pts = plan_.sorted_pts;
  const auto found = std::lower_bound(pts.begin(), pts.end(), timestamp);
  return found != pts.end() && *found == timestamp ? found - pts.begin() : -1;
}

std::optional<ErrorBody> FrameReader::Keep(FramePtr frame) {
  int64_t index = output_count_++;
  if (plan_.by_pts) {
    index = IndexOf(frame->pts);
    if (index < 0) index = IndexOf(frame->best_effort_timestamp);
    if (index < 0) return std::nullopt;
  }
  // Where the container's timestamps contradict the decoder's order, the decoder is right.
  if (held_ && index < held_index_) std::swap(index, held_index_);
  std::swap(frame, held_);
  std::swap(index, held_index_);
  return frame ? Place(std::move(frame), index) : std::nullopt;
}

std::optional<ErrorBody> FrameReader::Place(FramePtr frame, int64_t index) {
  if (done()) return std::nullopt;
  const auto found = std::lower_bound(wanted_.begin() + next_, wanted_.end(), index);
  const bool wanted = found != wanted_.end() && *found == index;
  const bool damaged = frame->decode_error_flags != 0 || (frame->flags & AV_FRAME_FLAG_CORRUPT);
  if (wanted && damaged) return ErrorBody{Failure::kCorrupt, frames_decoded_, 0};
  if (index > wanted_[next_]) ++beyond_;
  if (wanted) {
    waiting_[found - wanted_.begin()] = std::move(frame);
  } else if (index < wanted_[next_] && index > before_index_) {
    before_index_ = index;
    before_ = std::move(frame);
  } else if (!before_ && !after_) {
    after_ = std::move(frame);
  }
  HandOver(/*at_end=*/false);
  return std::nullopt;
}

void FrameReader::HandOver(bool at_end) {
  while (!done()) {
    const auto exact = waiting_.find(next_);
    if (exact != waiting_.end()) {
      before_ = std::move(exact->second);
      before_index_ = wanted_[next_];
      waiting_.erase(exact);
    } else if (before_ && before_index_ == wanted_[next_]) {
      // The same frame once more.
    } else if (!at_end && beyond_ <= kMaxWaiting) {
      return;
    }
    const AVFrame* frame = before_ ? before_.get() : after_.get();
    if (!frame && !waiting_.empty()) frame = waiting_.begin()->second.get();
    if (!frame) return;
    if (!take_(static_cast<uint32_t>(next_), *frame)) stopped_ = true;
    ++next_;
    beyond_ = waiting_.size();
  }
}

}  // namespace videonsa::decoder
