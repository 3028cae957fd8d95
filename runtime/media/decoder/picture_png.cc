#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <memory>

#include "runtime/media/decoder/picture.h"

namespace videonsa::decoder {
namespace {

struct Reader {
  const std::vector<uint8_t>* bytes;
  size_t position = 0;
};

void Read(png_structp codec, png_bytep out, size_t count) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(codec));
  if (count > reader->bytes->size() - reader->position) png_error(codec, "end");
  std::memcpy(out, reader->bytes->data() + reader->position, count);
  reader->position += count;
}

// Whether an EXIF chunk does not begin as TIFF does; Pillow refuses such a file.
bool HasBrokenExif(const std::vector<uint8_t>& bytes) {
  constexpr size_t kHeader = 8, kAroundData = 12;  // length and name; both and the checksum
  for (size_t at = kHeader; at + kAroundData <= bytes.size();) {
    const uint8_t* chunk = bytes.data() + at;
    const size_t length = size_t{chunk[0]} << 24 | chunk[1] << 16 | chunk[2] << 8 | chunk[3];
    if (length > bytes.size() - at - kAroundData) return false;
    if (std::memcmp(chunk + 4, "eXIf", 4) == 0) {
      const uint8_t* data = chunk + 8;
      return length < 4 ||
             (std::memcmp(data, "II*\0", 4) != 0 && std::memcmp(data, "MM\0*", 4) != 0);
    }
    at += length + kAroundData;
  }
  return false;
}

[[noreturn]] void Escape(png_structp codec, png_const_charp) { png_longjmp(codec, 1); }
void Ignore(png_structp, png_const_charp) {}

// 16-bit gray is Pillow's mode I: its RGB form clips instead of scaling.
void ClipGray16(const uint8_t* row, int width, uint8_t* out) {
  for (int x = 0; x < width; ++x) {
    const int value = row[2 * x] << 8 | row[2 * x + 1];
    const auto clipped = static_cast<uint8_t>(std::min(value, 255));
    std::fill_n(out + 3 * x, 3, clipped);
  }
}

class PngDecoder {
 public:
  explicit PngDecoder(const std::vector<uint8_t>& bytes) : reader_{&bytes} {
    codec_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, &Escape, &Ignore);
    info_ = codec_ ? png_create_info_struct(codec_) : nullptr;
  }
  ~PngDecoder() { png_destroy_read_struct(&codec_, &info_, nullptr); }

  PictureResult Decode(const PictureLimits& limits, Picture* out) {
    if (!info_) return ErrorBody{Failure::kMemory, 0, 0};
    if (setjmp(png_jmpbuf(codec_)) != 0) return ErrorBody{Failure::kCorrupt, 0, 0};
    png_set_crc_action(codec_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_read_fn(codec_, &reader_, &Read);
    png_read_info(codec_, info_);
    const int64_t pixels =
        int64_t{png_get_image_width(codec_, info_)} * png_get_image_height(codec_, info_);
    if (pixels > limits.max_pixels) return ErrorBody{Failure::kPixels, pixels, limits.max_pixels};
    SetTransforms();
    out->format = "png";
    out->width = static_cast<int>(png_get_image_width(codec_, info_));
    out->height = static_cast<int>(png_get_image_height(codec_, info_));
    const size_t stride = png_get_rowbytes(codec_, info_);
    pixels_.resize(stride * out->height);
    rows_.resize(out->height);
    for (int y = 0; y < out->height; ++y) rows_[y] = pixels_.data() + stride * y;
    png_read_image(codec_, rows_.data());
    png_read_end(codec_, nullptr);
    Convert(out);
    return std::nullopt;
  }

 private:
  void SetTransforms() {
    type_ = png_get_color_type(codec_, info_);
    depth_ = png_get_bit_depth(codec_, info_);
    if (type_ == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(codec_);
    if (type_ == PNG_COLOR_TYPE_GRAY && depth_ < 8) png_set_expand_gray_1_2_4_to_8(codec_);
    // A transparent colour is no alpha channel to Pillow.
    png_free_data(codec_, info_, PNG_FREE_TRNS, -1);
    png_set_invalid(codec_, info_, PNG_INFO_tRNS);
    clip_gray_ = type_ == PNG_COLOR_TYPE_GRAY && depth_ == 16;
    if (depth_ == 16 && !clip_gray_) png_set_strip_16(codec_);
    if ((type_ & PNG_COLOR_MASK_COLOR) == 0 && !clip_gray_) png_set_gray_to_rgb(codec_);
    png_set_interlace_handling(codec_);
    png_read_update_info(codec_, info_);
  }

  void Convert(Picture* out) const {
    const size_t count = size_t(out->width) * out->height;
    out->rgb.resize(3 * count);
    const int channels = png_get_channels(codec_, info_);
    const bool rgba = type_ == PNG_COLOR_TYPE_RGB_ALPHA;
    if (rgba) out->alpha.resize(count);
    for (int y = 0; y < out->height; ++y) {
      uint8_t* target = out->rgb.data() + size_t{3} * out->width * y;
      if (clip_gray_) {
        ClipGray16(rows_[y], out->width, target);
        continue;
      }
      for (int x = 0; x < out->width; ++x) {
        std::copy_n(rows_[y] + channels * x, 3, target + 3 * x);
        if (rgba) out->alpha[size_t(out->width) * y + x] = rows_[y][channels * x + 3];
      }
    }
  }

  Reader reader_;
  png_structp codec_ = nullptr;
  png_infop info_ = nullptr;
  int type_ = 0;
  int depth_ = 0;
  bool clip_gray_ = false;
  std::vector<uint8_t> pixels_;
  std::vector<png_bytep> rows_;
};

}  // namespace

PictureResult DecodePng(const std::vector<uint8_t>& bytes, const PictureLimits& limits,
                        Picture* out) {
  if (HasBrokenExif(bytes)) return ErrorBody{Failure::kCorrupt, 0, 0};
  return PngDecoder(bytes).Decode(limits, out);
}

}  // namespace videonsa::decoder
