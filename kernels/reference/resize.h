#pragma once

#include <cstdint>
#include <vector>

namespace videonsa::reference {

/// One channel of a picture resized by antialiased bicubic interpolation in double, straight from
/// the definition: both axes at once, weights normalised per output pixel.
///
/// Shapes: in [in_height, in_width]; result [out_height, out_width], neither clamped nor rounded.
/// Source: preprocess-and-model section 2.3.
std::vector<double> ResizeBicubic(const std::vector<double>& in, int in_height, int in_width,
                                  int out_height, int out_width);

}  // namespace videonsa::reference
