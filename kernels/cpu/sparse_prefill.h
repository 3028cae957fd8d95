#pragma once

#include "kernels/attention/attention_params.h"
#include "kernels/common/thread_pool.h"

namespace videonsa {

/// Scratch bytes of SparsePrefill for prompts of at most `max_len` tokens.
size_t SparsePrefillScratchBytes(const SparsePrefillParams& shape, int num_threads, int max_len);

/// Attention of a whole prompt over the keys that a training-free pattern leaves (dense
/// checkpoints). Each query head first finds its pattern, then walks over the tiles it kept.
///
/// Requires: settings.tri_init % 64 == 0; out does not overlap q.
/// Numerics: fp32 as DensePrefill; patterns are found in fp32 with sums in fp64, ties to the lower
///           index.
/// Source: kernels/attention/README.md.
void SparsePrefill(const SparsePrefillParams& params, Scratch scratch, ThreadPool& pool);

}  // namespace videonsa
