#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/media/decoder/clip.h"
#include "runtime/media/decoder/decode_plan.h"

struct AVCodecContext;
struct AVFrame;
struct AVPacket;

namespace videonsa::decoder {

struct FrameDeleter {
  void operator()(AVFrame* frame) const;
};
using FramePtr = std::unique_ptr<AVFrame, FrameDeleter>;

/// Decodes the wanted frames of a clip and hands them over in order.
///
/// A wanted place that the decoder gives no frame for (a hidden picture, one dropped by an edit
/// list) gets the nearest frame before it, or the first frame after it if there is none.
///
/// Threads: one at a time; libav decodes on `threads` threads of its own.
class FrameReader {
 public:
  /// Takes the frame at place `sequence` of `wanted`; false stops the reading.
  using TakeFrame = std::function<bool(uint32_t sequence, const AVFrame& frame)>;

  /// Requires: `wanted` ascending (repeats allowed), within the clip's packets.
  FrameReader(Clip* clip, std::vector<int64_t> wanted, TakeFrame take);
  ~FrameReader();
  FrameReader(const FrameReader&) = delete;
  FrameReader& operator=(const FrameReader&) = delete;

  /// Decodes until every wanted frame was taken. On failure says why.
  std::optional<ErrorBody> Run(int threads, int64_t max_pixels);

  int64_t frames_decoded() const { return frames_decoded_; }

 private:
  std::optional<ErrorBody> OpenCodec(int threads, int64_t max_pixels);
  std::optional<ErrorBody> Feed(AVPacket* packet);
  std::optional<ErrorBody> Drain();
  std::optional<ErrorBody> TakeOutput();
  int64_t IndexOf(int64_t timestamp) const;
  std::optional<ErrorBody> Keep(FramePtr frame);
  std::optional<ErrorBody> Place(FramePtr frame, int64_t index);
  void HandOver(bool at_end);
  bool done() const { return stopped_ || next_ == wanted_.size(); }

  Clip* const clip_;
  const std::vector<int64_t> wanted_;
  const TakeFrame take_;
  DecodePlan plan_;
  AVCodecContext* codec_ = nullptr;
  std::map<size_t, FramePtr> waiting_;  // wanted frames by place, not handed over yet
  FramePtr before_;                     // latest frame before the next wanted one
  FramePtr after_;                      // first frame of all, if none came before
  int64_t before_index_ = -1;
  FramePtr held_;  // last frame that came out, not placed yet
  int64_t held_index_ = 0;
  int64_t output_count_ = 0;  // frames that came out, for clips without usable pts
  size_t beyond_ = 0;         // frames that came out since the next wanted one was due
  bool fed_ = false;          // the decoder holds packets
  size_t next_ = 0;           // next place of wanted_
  int64_t frames_decoded_ = 0;
  bool stopped_ = false;
};

}  // namespace videonsa::decoder
