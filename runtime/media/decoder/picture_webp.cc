#include <webp/decode.h>

#include "runtime/media/decoder/picture.h"

namespace videonsa::decoder {

PictureResult DecodeWebp(const std::vector<uint8_t>& bytes, const PictureLimits& limits,
                         Picture* out) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(bytes.data(), bytes.size(), &features) != VP8_STATUS_OK) {
    return ErrorBody{Failure::kCorrupt, 0, 0};
  }
  const int64_t pixels = int64_t{features.width} * features.height;
  if (pixels > limits.max_pixels) return ErrorBody{Failure::kPixels, pixels, limits.max_pixels};
  out->format = "webp";
  out->width = features.width;
  out->height = features.height;
  out->rgb.resize(3 * pixels);
  if (features.has_animation) return ErrorBody{Failure::kAnimation, 0, 0};
  if (!features.has_alpha) {
    const bool decoded = WebPDecodeRGBInto(bytes.data(), bytes.size(), out->rgb.data(),
                                           out->rgb.size(), 3 * out->width) != nullptr;
    if (!decoded) return ErrorBody{Failure::kCorrupt, 0, 0};
    return std::nullopt;
  }
  std::vector<uint8_t> rgba(4 * pixels);
  if (!WebPDecodeRGBAInto(bytes.data(), bytes.size(), rgba.data(), rgba.size(), 4 * out->width)) {
    return ErrorBody{Failure::kCorrupt, 0, 0};
  }
  out->alpha.resize(pixels);
  for (int64_t i = 0; i < pixels; ++i) {
    for (int c = 0; c < 3; ++c) out->rgb[3 * i + c] = rgba[4 * i + c];
    out->alpha[i] = rgba[4 * i + 3];
  }
  return std::nullopt;
}

}  // namespace videonsa::decoder
