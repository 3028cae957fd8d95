#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "runtime/media/decoder/picture.h"

extern "C" {
#include <jpeglib.h>
}

namespace videonsa::decoder {
namespace {

constexpr char kExif[6] = {'E', 'x', 'i', 'f', 0, 0};
constexpr size_t kTiffHeaderBytes = 8;
constexpr int kReferenceQuality = 75;  // Pillow's default, with 4:2:0

struct ErrorManager {
  jpeg_error_mgr base;
  std::jmp_buf escape;
};

[[noreturn]] void Escape(j_common_ptr codec) {
  std::longjmp(reinterpret_cast<ErrorManager*>(codec->err)->escape, 1);
}
void Ignore(j_common_ptr) {}
// Warnings of the data stream pass, as in Pillow; only a file that ends early is damaged.
void CountWarning(j_common_ptr codec, int level) {
  if (level < 0) ++codec->err->num_warnings;
}

jpeg_error_mgr* SetUp(ErrorManager* errors) {
  jpeg_std_error(&errors->base);
  errors->base.error_exit = &Escape;
  errors->base.output_message = &Ignore;
  errors->base.emit_message = &CountWarning;
  return &errors->base;
}

// A source that fails at the end of the data instead of inventing an end marker.
boolean FailAtEnd(j_decompress_ptr codec) {
  Escape(reinterpret_cast<j_common_ptr>(codec));
  return FALSE;
}
void NoSource(j_decompress_ptr) {}
void SkipBytes(j_decompress_ptr codec, long count) {
  if (count <= 0) return;
  if (static_cast<size_t>(count) > codec->src->bytes_in_buffer) {
    Escape(reinterpret_cast<j_common_ptr>(codec));
  }
  codec->src->next_input_byte += count;
  codec->src->bytes_in_buffer -= count;
}

// One row of Adobe CMYK (stored inverted) to RGB, as Pillow's cmyk2rgb.
void CmykToRgb(const uint8_t* in, int width, uint8_t* out) {
  for (int x = 0; x < width; ++x, in += 4, out += 3) {
    const int k = in[3];  // 255 - key
    for (int c = 0; c < 3; ++c) {
      const int ink = 255 - in[c];
      const int product = ink * k + 128;
      out[c] = static_cast<uint8_t>(std::max(0, k - (((product >> 8) + product) >> 8)));
    }
  }
}

// An EXIF segment must have room for a TIFF header, as in Pillow.
bool HasCutExif(const jpeg_decompress_struct& codec) {
  for (auto* marker = codec.marker_list; marker; marker = marker->next) {
    const bool exif = marker->data_length >= sizeof(kExif) &&
                      std::memcmp(marker->data, kExif, sizeof(kExif)) == 0;
    if (exif && marker->data_length < sizeof(kExif) + kTiffHeaderBytes) return true;
  }
  return false;
}

PictureResult ReadHeader(jpeg_decompress_struct* codec, const PictureLimits& limits, Picture* out) {
  jpeg_save_markers(codec, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(codec, TRUE);
  if (HasCutExif(*codec)) return ErrorBody{Failure::kCorrupt, 0, 0};
  const int64_t pixels = int64_t{codec->image_width} * codec->image_height;
  if (pixels > limits.max_pixels) return ErrorBody{Failure::kPixels, pixels, limits.max_pixels};
  out->format = "jpeg";
  out->width = static_cast<int>(codec->image_width);
  out->height = static_cast<int>(codec->image_height);
  switch (codec->num_components) {
    case 1:
      codec->out_color_space = JCS_GRAYSCALE;
      break;
    case 3:
      codec->out_color_space = JCS_RGB;
      break;
    case 4:
      codec->out_color_space = JCS_CMYK;
      break;
    default:
      return ErrorBody{Failure::kPixelFormat, codec->num_components, 4};
  }
  out->rgb.assign(size_t{3} * pixels, 0);
  return std::nullopt;
}

void ReadRows(jpeg_decompress_struct* codec, std::vector<uint8_t>* row, Picture* out) {
  while (codec->output_scanline < codec->output_height) {
    uint8_t* target = out->rgb.data() + size_t{3} * out->width * codec->output_scanline;
    JSAMPROW rows[1] = {codec->out_color_components == 3 ? target : row->data()};
    jpeg_read_scanlines(codec, rows, 1);
    if (codec->out_color_components == 1) {
      for (int x = 0; x < out->width; ++x) {
        target[3 * x] = target[3 * x + 1] = target[3 * x + 2] = (*row)[x];
      }
    } else if (codec->out_color_components == 4) {
      CmykToRgb(row->data(), out->width, target);
    }
  }
}

}  // namespace

PictureResult DecodeJpeg(const std::vector<uint8_t>& bytes, const PictureLimits& limits,
                         Picture* out) {
  jpeg_decompress_struct codec{};
  ErrorManager errors;
  std::vector<uint8_t> row;
  PictureResult result;
  codec.err = SetUp(&errors);
  if (setjmp(errors.escape) == 0) {
    jpeg_create_decompress(&codec);
    jpeg_source_mgr source{};
    source.next_input_byte = bytes.data();
    source.bytes_in_buffer = bytes.size();
    source.init_source = &NoSource;
    source.fill_input_buffer = &FailAtEnd;
    source.skip_input_data = &SkipBytes;
    source.resync_to_restart = &jpeg_resync_to_restart;
    source.term_source = &NoSource;
    codec.src = &source;
    result = ReadHeader(&codec, limits, out);
    if (!result) {
      jpeg_start_decompress(&codec);
      row.resize(size_t{4} * out->width);
      ReadRows(&codec, &row, out);
    }
  } else {
    result = ErrorBody{Failure::kCorrupt, codec.output_scanline, codec.output_height};
  }
  jpeg_destroy_decompress(&codec);
  return result;
}

PictureResult JpegAgain(Picture* picture) {
  jpeg_compress_struct codec{};
  ErrorManager errors;
  unsigned char* encoded = nullptr;
  unsigned long encoded_bytes = 0;
  volatile bool failed = false;
  codec.err = SetUp(&errors);
  if (setjmp(errors.escape) == 0) {
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &encoded, &encoded_bytes);
    codec.image_width = picture->width;
    codec.image_height = picture->height;
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    jpeg_set_quality(&codec, kReferenceQuality, TRUE);
    jpeg_start_compress(&codec, TRUE);
    while (codec.next_scanline < codec.image_height) {
      JSAMPROW row = picture->rgb.data() + size_t{3} * picture->width * codec.next_scanline;
      jpeg_write_scanlines(&codec, &row, 1);
    }
    jpeg_finish_compress(&codec);
  } else {
    failed = true;
  }
  jpeg_destroy_compress(&codec);
  const std::vector<uint8_t> bytes(encoded, encoded + (failed ? 0 : encoded_bytes));
  std::free(encoded);
  if (failed) return ErrorBody{Failure::kPixels, picture->width, JPEG_MAX_DIMENSION};
  const char* format = picture->format;
  picture->alpha.clear();
  auto result = DecodeJpeg(bytes, {int64_t{picture->width} * picture->height}, picture);
  picture->format = format;
  return result;
}

}  // namespace videonsa::decoder
