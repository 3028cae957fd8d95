#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

struct AVFrame;
struct SwsContext;

namespace videonsa::decoder {

/// Converts decoded frames to upright packed RGB, with the scaler settings of the reference
/// (preprocess-and-model section 1.2): bilinear, no accurate rounding, matrix and range from the
/// frame's tags, untagged means BT.601.
///
/// Threads: one at a time.
class FrameWriter {
 public:
  /// Frames are brought to `width` x `height` and then turned clockwise by `rotation` degrees.
  FrameWriter(int width, int height, int rotation);
  ~FrameWriter();
  FrameWriter(const FrameWriter&) = delete;
  FrameWriter& operator=(const FrameWriter&) = delete;

  /// Writes 3 * width * height bytes (up to kSlotSlack more may be touched); false if the scaler
  /// cannot read the frame's format.
  bool WriteRgb(const AVFrame& frame, uint8_t* out);

 private:
  bool Prepare(const AVFrame& frame);

  const int width_, height_, rotation_;
  SwsContext* scaler_ = nullptr;
  int source_[5] = {-1, -1, -1, -1, -1};  // width, height, format, colourspace, range of scaler_
  const size_t stride_;                   // of padded_, bytes
  std::vector<uint8_t> padded_;  // the scaler's output, unless it may write straight to the slot
};

/// Turns RGB of `width` x `height`, rows `stride` bytes apart, clockwise by 0, 90, 180 or 270
/// degrees into packed rows.
void TurnRgb(const uint8_t* in, size_t stride, int width, int height, int degrees, uint8_t* out);

}  // namespace videonsa::decoder
