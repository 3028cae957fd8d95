#include "runtime/media/decoder/frame_writer.h"

#include <algorithm>

#include "runtime/media/decoder/wire.h"

extern "C" {
#include <libavutil/frame.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

namespace videonsa::decoder {
namespace {

// As the scale filter: tags outside the table, and no tag, mean BT.601.
const int* MatrixOf(int colorspace) {
  if (colorspace < 1 || colorspace > 10 || colorspace == AVCOL_SPC_YCGCO) {
    colorspace = AVCOL_SPC_BT470BG;
  }
  return sws_getCoefficients(colorspace);
}

bool IsFullRange(const AVFrame& frame) {
  switch (frame.format) {
    case AV_PIX_FMT_YUVJ420P:
    case AV_PIX_FMT_YUVJ422P:
    case AV_PIX_FMT_YUVJ444P:
    case AV_PIX_FMT_YUVJ440P:
    case AV_PIX_FMT_YUVJ411P:
      return true;
    default:
      return frame.color_range == AVCOL_RANGE_JPEG;
  }
}

}  // namespace

// Rows of the scaler's output begin at multiples of this. With less room it finishes rows by other
// code, which rounds otherwise than the reference does.
constexpr size_t kRowAlignment = 64;

FrameWriter::FrameWriter(int width, int height, int rotation)
    : width_(width),
      height_(height),
      rotation_(rotation),
      stride_((size_t{3} * width + kRowAlignment - 1) / kRowAlignment * kRowAlignment) {
  const bool straight = rotation_ == 0 && stride_ == size_t{3} * width;
  if (!straight) padded_.resize(stride_ * height_ + kSlotSlack);
}

FrameWriter::~FrameWriter() { sws_freeContext(scaler_); }

bool FrameWriter::Prepare(const AVFrame& frame) {
  const int full = IsFullRange(frame);
  const int key[5] = {frame.width, frame.height, frame.format, frame.colorspace, full};
  if (scaler_ && std::equal(key, key + 5, source_)) return true;
  sws_freeContext(scaler_);
  scaler_ = sws_alloc_context();
  if (!scaler_) return false;
  av_opt_set_int(scaler_, "srcw", frame.width, 0);
  av_opt_set_int(scaler_, "srch", frame.height, 0);
  av_opt_set_int(scaler_, "src_format", frame.format, 0);
  av_opt_set_int(scaler_, "dstw", width_, 0);
  av_opt_set_int(scaler_, "dsth", height_, 0);
  av_opt_set_int(scaler_, "dst_format", AV_PIX_FMT_RGB24, 0);
  av_opt_set_int(scaler_, "sws_flags", SWS_BILINEAR, 0);
  // The scale filter places 4:2:0 chroma as MPEG-2 does; it matters for odd heights only.
  if (frame.format == AV_PIX_FMT_YUV420P) av_opt_set_int(scaler_, "src_v_chr_pos", 128, 0);
  int* ignored;
  int in_full, out_full, brightness, contrast, saturation;
  if (sws_getColorspaceDetails(scaler_, &ignored, &in_full, &ignored, &out_full, &brightness,
                               &contrast, &saturation) < 0) {
    brightness = 0;
    contrast = saturation = 1 << 16;
  }
  const int* matrix = MatrixOf(frame.colorspace);
  sws_setColorspaceDetails(scaler_, matrix, full, matrix, 0, brightness, contrast, saturation);
  if (sws_init_context(scaler_, nullptr, nullptr) < 0) {
    sws_freeContext(scaler_);
    scaler_ = nullptr;
    return false;
  }
  sws_setColorspaceDetails(scaler_, matrix, full, matrix, 0, 0, 1 << 16, 1 << 16);
  std::copy(key, key + 5, source_);
  return true;
}

bool FrameWriter::WriteRgb(const AVFrame& frame, uint8_t* out) {
  if (!Prepare(frame)) return false;
  uint8_t* target = padded_.empty() ? out : padded_.data();
  uint8_t* planes[4] = {target, nullptr, nullptr, nullptr};
  const int strides[4] = {static_cast<int>(stride_), 0, 0, 0};
  if (sws_scale(scaler_, frame.data, frame.linesize, 0, frame.height, planes, strides) < 0) {
    return false;
  }
  if (!padded_.empty()) TurnRgb(padded_.data(), stride_, width_, height_, rotation_, out);
  return true;
}

void TurnRgb(const uint8_t* in, size_t stride, int width, int height, int degrees, uint8_t* out) {
  if (degrees == 0) {
    for (int y = 0; y < height; ++y) {
      std::copy_n(in + stride * y, size_t{3} * width, out + size_t{3} * width * y);
    }
    return;
  }
  const int out_width = degrees == 180 ? width : height;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      int out_x = width - 1 - x, out_y = height - 1 - y;
      if (degrees == 90) {
        out_x = height - 1 - y;
        out_y = x;
      } else if (degrees == 270) {
        out_x = y;
        out_y = width - 1 - x;
      }
      std::copy_n(in + stride * y + size_t{3} * x, 3,
                  out + size_t{3} * (size_t(out_y) * out_width + out_x));
    }
  }
}

}  // namespace videonsa::decoder
