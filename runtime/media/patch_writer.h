#pragma once

#include "kernels/cpu/resize.h"
#include "runtime/step/patch_batch.h"

namespace videonsa {

inline constexpr int kPatchSize = 14;
inline constexpr int kTemporalPatch = 2;

/// Normalises `frame` and writes it as frame `k` (0 or 1) of one temporal patch.
///
/// Shapes:   frame [height, width], both multiples of 28; rows [height / 14 * width / 14, 1176],
///           the other frame's columns are left alone.
/// Numerics: (x - M) / S in float32 with true division.
/// Source:   preprocess-and-model sections 2.5 and 2.6.
void WritePatches(const RgbxImage& frame, int k, float* rows);

}  // namespace videonsa
