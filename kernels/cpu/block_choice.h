#pragma once

#include <cstdint>

namespace videonsa {

/// Chooses the own block and the `count - 1` heaviest earlier ones, ties to the lower index.
///
/// Shapes: weights [own, readable up to the next multiple of 64], finite; or their logarithms
///         blocks  [count]; in no particular order, then -1
///         scratch [count] floats
/// Requires: count >= 1. Returns how many blocks were chosen: min(count, own + 1).
/// Source: attention.md section 3, step 2.
int ChooseCausalBlocks(const float* weights, int own, int count, int32_t* blocks, float* scratch);

}  // namespace videonsa
