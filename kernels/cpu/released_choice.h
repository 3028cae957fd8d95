#pragma once

#include "kernels/cpu/nsa_span.h"

namespace videonsa {

/// Scores of the blocks before the own one, and 16 for the own one, for every token of a span.
///
/// Rows of the span are the data slots of its KV head; the other slots of 16 count as zero queries.
/// Shapes: lse     [64 * len] the flat log-sum-exp array (quirk Q4: row i reads from i * 64 on)
///         weights [num_rows, stride] room
///         scores  [num_tokens, stride] blocks 0 .. own are written
/// Requires: stride = pooled.num_tiles * 64.
/// Numerics: one exp for all blocks, slots summed in order, denormals kept: equal keys give equal
///           bits. Sums past the largest float are set to it; returns how many tokens had one.
int ReleasedScores(const NsaSpan& span, const PooledTiles& pooled, const float* lse, float scale,
                   float* weights, float* scores);

/// The same for one text row: all earlier blocks score alike because its query is zero.
void ReleasedTextScores(const float* lse, int position, int kv_head, float* scores);

/// Chooses n blocks a token with the released kernel's bitonic network (quirks Q5 and Q11).
///
/// Shapes: positions [num_tokens]; scores [num_tokens, stride]; blocks [num_tokens, n], -1 = empty
/// Requires: n in {1, 2, 4, 8, 16, 32}; all positions in one run of 4096 (multiples of it).
/// Source: attention.md section 5.
void NetworkChoice(const int32_t* positions, int num_tokens, const float* scores, int64_t stride,
                   int n, int32_t* blocks);

}  // namespace videonsa
