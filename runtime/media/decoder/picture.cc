#include "runtime/media/decoder/picture.h"

#include <algorithm>
#include <cstring>

namespace videonsa::decoder {
namespace {

bool StartsWith(const std::vector<uint8_t>& bytes, size_t offset, const char* text, size_t count) {
  return bytes.size() >= offset + count && std::memcmp(bytes.data() + offset, text, count) == 0;
}

bool IsJpeg(const std::vector<uint8_t>& bytes) { return StartsWith(bytes, 0, "\xff\xd8\xff", 3); }
bool IsPng(const std::vector<uint8_t>& bytes) {
  return StartsWith(bytes, 0, "\x89PNG\r\n\x1a\n", 8);
}
bool IsWebp(const std::vector<uint8_t>& bytes) {
  return StartsWith(bytes, 0, "RIFF", 4) && StartsWith(bytes, 8, "WEBP", 4);
}

}  // namespace

bool IsPicture(const std::vector<uint8_t>& head) {
  return IsJpeg(head) || IsPng(head) || IsWebp(head);
}

PictureResult DecodePicture(const std::vector<uint8_t>& bytes, const PictureLimits& limits,
                            Picture* out) {
  if (IsJpeg(bytes)) return DecodeJpeg(bytes, limits, out);
  if (IsPng(bytes)) return DecodePng(bytes, limits, out);
  if (IsWebp(bytes)) return DecodeWebp(bytes, limits, out);
  return ErrorBody{Failure::kContainer, 0, 0};
}

void BlendOnWhite(Picture* picture) {
  for (size_t i = 0; i < picture->alpha.size(); ++i) {
    const uint32_t alpha = picture->alpha[i];
    for (size_t c = 0; c < 3; ++c) {
      uint8_t& value = picture->rgb[3 * i + c];
      const uint32_t sum = 255u * (255u - alpha) + value * alpha + 128u;
      value = static_cast<uint8_t>(((sum >> 8) + sum) >> 8);
    }
  }
  picture->alpha.clear();
}

}  // namespace videonsa::decoder
