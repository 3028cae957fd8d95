#pragma once

#include "kernels/cpu/nsa_span.h"

namespace videonsa {

/// Which block means a row of the compression branch sees.
enum class CompressedView : uint8_t {
  kEarlier,      ///< causal_nsa: complete blocks that end at or before the row
  kOwnAndLater,  ///< released_nsa: the own block and all later ones (quirk Q3)
};

/// The compression branch of a short span (about 24 rows, see CompressedTokens).
///
/// Shapes: weights    [num_rows, stride] scratch; afterwards softmax weights of blocks
///                    [first tile seen * 64, last tile seen * 64), zeros where not visible
///         importance [num_tokens, stride] or null; weights summed over a token's rows, same range
///         lse        [num_rows] or null; natural log-sum-exp of the scaled logits
/// The result is left in the rows' states with a weight sum of 1 (0 if a row sees nothing).
/// Requires: stride = pooled.num_tiles * 64.
struct CompressedArgs {
  NsaSpan span;
  PooledTiles pooled;
  CompressedView view = CompressedView::kEarlier;
  float scale = 0;
  float* weights = nullptr;
  float* importance = nullptr;
  float* lse = nullptr;
};

/// Tokens of one call: enough rows to reuse a tile of block means, few enough to keep the weights
/// of a 128K prompt in the second-level cache.
constexpr int CompressedTokens(int group) { return group >= 24 ? 1 : 24 / group; }

void CompressedAttention(const CompressedArgs& args);

/// Log2 of the importance of `args`, computed anew without ever leaving fp32's range: weights of
/// blocks far below the best are powers that fp32 does not have. Finite; `weights` is scratch.
void LogImportance(const CompressedArgs& args);

}  // namespace videonsa
