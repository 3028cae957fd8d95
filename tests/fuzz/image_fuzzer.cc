// Any bytes as a picture: refused with a reason, or pixels of the size that the header promised.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/media/decoder/picture.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace videonsa::decoder;
  constexpr int64_t kMaxPixels = 1 << 18;
  const std::vector<uint8_t> bytes(data, data + size);
  const std::vector<uint8_t> head(bytes.begin(),
                                  bytes.begin() + std::min<int64_t>(kSignatureBytes, bytes.size()));
  if (!IsPicture(head)) return 0;
  Picture picture;
  if (DecodePicture(bytes, {kMaxPixels}, &picture)) return 0;
  VNSA_CHECK(picture.width > 0 && picture.height > 0) << picture.width << " x " << picture.height;
  const int64_t pixels = int64_t{picture.width} * picture.height;
  VNSA_CHECK(pixels <= kMaxPixels) << pixels;
  VNSA_CHECK_EQ(static_cast<int64_t>(picture.rgb.size()), pixels * 3);
  VNSA_CHECK(picture.alpha.empty() || static_cast<int64_t>(picture.alpha.size()) == pixels)
      << picture.alpha.size();
  BlendOnWhite(&picture);
  JpegAgain(&picture);
  return 0;
}
