#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace videonsa {

/// Windows and weights of one axis of an antialiased bicubic resize.
struct ResizeAxis {
  int in = 0;
  int out = 0;
  std::vector<int32_t> first;  ///< [out] first tap
  std::vector<int32_t> count;  ///< [out] number of taps, >= 1
  std::vector<float> weights;  ///< [out, max_count] rows padded with 0
  int max_count = 0;

  bool identity() const { return in == out; }
};

/// The float32 windows of PyTorch's upsample_bicubic2d_aa (a = -0.5, half-pixel centres).
///
/// Requires: in > 0, out > 0.
/// Source: preprocess-and-model section 2.3.
ResizeAxis MakeBicubicAxis(int in, int out);

/// A picture of floats, four a pixel (R, G, B and one unused), rows without padding.
struct RgbxImage {
  int height = 0;
  int width = 0;
  std::vector<float> values;  ///< [height, width, 4]

  void Resize(int new_height, int new_width) {
    height = new_height;
    width = new_width;
    values.resize(size_t{4} * new_height * new_width);
  }
};

/// Antialiased bicubic resize of frames of one size to another, as torchvision does it on tensors:
/// width first, then height, float32; an axis whose size stays is skipped.
///
/// Numerics: the order of additions and fusions is PyTorch's (products in groups of four are added
///           unfused, the rest fused), so that rounded results are equal bit for bit.
/// Threads:  one at a time.
class BicubicResizer {
 public:
  BicubicResizer(int in_height, int in_width, int out_height, int out_width);

  bool identity() const { return x_.identity() && y_.identity(); }

  /// Packed RGB [in_height, in_width, 3] to `out`, clamped to 0..255 and rounded half to even.
  void ResizeRounded(const uint8_t* rgb, RgbxImage* out);
  /// `in` to `out`, neither clamped nor rounded.
  void Resize(const RgbxImage& in, RgbxImage* out);

 private:
  void Run(const uint8_t* rgb, const float* rgbx, bool round, RgbxImage* out);

  const ResizeAxis x_, y_;
  RgbxImage wide_;             // after the width pass
  std::vector<float> packed_;  // some input rows side by side
};

/// Antialiased bicubic resize of uint8 pictures in fixed point, two passes with a uint8 picture in
/// between; an axis whose size stays is skipped.
enum class FixedPointRules {
  kPillow,      ///< 22 bits, weights int32: Image.resize(BICUBIC)
  kTorchUint8,  ///< int16 weights with as many bits as fit: torchvision v2 on uint8 tensors
};

/// Resizes packed RGB [in_height, in_width, 3] to [out_height, out_width, 3].
///
/// Source: preprocess-and-model section 2.4 and the last item of 2.3.
std::vector<uint8_t> ResizeFixedPoint(const uint8_t* rgb, int in_height, int in_width,
                                      int out_height, int out_width, FixedPointRules rules);

}  // namespace videonsa
