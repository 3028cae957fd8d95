#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace videonsa {

/// Size of one visual in patches of 14 pixels: `t` temporal patches of 2 frames, `h` x `w` spatial.
struct PatchGrid {
  int t = 0;
  int h = 0;
  int w = 0;

  int64_t num_patches() const { return int64_t{t} * h * w; }
  /// Prompt tokens after the 2 x 2 merger.
  int64_t num_tokens() const { return num_patches() / 4; }
  friend bool operator==(const PatchGrid&, const PatchGrid&) = default;
};

/// Values in one patch row: 3 channels x 2 frames x 14 x 14.
inline constexpr int kPatchDim = 1176;

/// Preprocessed patches of one visual on the host.
///
/// Shapes: rows [num_patches, patch_dim] fp32, row (t, R, C, a, b) and column (c, k, i, j) order of
///         preprocess-and-model section 2.6.
struct PatchBatch {
  bool image = false;
  PatchGrid grid;
  std::vector<float> rows;
};

}  // namespace videonsa
