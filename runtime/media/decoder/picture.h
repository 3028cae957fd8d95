#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/media/decoder/wire.h"

namespace videonsa::decoder {

/// A decoded picture, as Pillow's convert("RGB") gives it; alpha kept beside when the file's own
/// mode is RGBA.
struct Picture {
  const char* format = "";  ///< "png", "jpeg", "webp", "gif", "bmp"
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;
  std::vector<uint8_t> alpha;  ///< empty unless the mode is RGBA
};

/// Largest pixel count that a decoder may allocate for.
struct PictureLimits {
  int64_t max_pixels;
};

using PictureResult = std::optional<ErrorBody>;

/// Bytes at the start of a file that tell whether it is a picture we read.
inline constexpr int64_t kSignatureBytes = 12;
bool IsPicture(const std::vector<uint8_t>& head);

/// Decodes the picture in `bytes` by its signature. EXIF orientation is not applied, as in the
/// reference. On failure says why.
PictureResult DecodePicture(const std::vector<uint8_t>& bytes, const PictureLimits& limits,
                            Picture* out);

PictureResult DecodeJpeg(const std::vector<uint8_t>& bytes, const PictureLimits& limits,
                         Picture* out);
PictureResult DecodePng(const std::vector<uint8_t>& bytes, const PictureLimits& limits,
                        Picture* out);
PictureResult DecodeWebp(const std::vector<uint8_t>& bytes, const PictureLimits& limits,
                         Picture* out);

/// Blends RGBA on white as Pillow's paste does; drops the alpha.
void BlendOnWhite(Picture* picture);

/// Replaces the picture by its JPEG (quality 75, 4:2:0) decoded again, as the evaluation does.
PictureResult JpegAgain(Picture* picture);

}  // namespace videonsa::decoder
