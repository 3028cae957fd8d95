#pragma once

#include "kernels/attention/attention_params.h"
#include "kernels/common/thread_pool.h"

namespace videonsa {

/// Scratch bytes of DensePrefill; does not depend on the number of rows.
size_t DensePrefillScratchBytes(int num_threads, int num_q_heads, int num_kv_heads, int head_dim);

/// Causal attention of prompt rows, one pass over the keys with a running softmax.
///
/// Numerics: fp32 accumulation; the running maximum is raised only when a logit exceeds it by more
///           than 2^8 in weight, which changes rounding but never the result's scale.
void DensePrefill(const DensePrefillParams& params, Scratch scratch, ThreadPool& pool);

/// Scratch bytes of DenseDecode for at most `num_seqs` rows of at most `max_kv_len` keys each.
size_t DenseDecodeScratchBytes(int num_threads, int num_seqs, int max_kv_len, int num_q_heads,
                               int num_kv_heads, int head_dim);

/// Attention of one row per sequence; long caches are split over tasks at fixed positions.
void DenseDecode(const DecodeParams& params, Scratch scratch, ThreadPool& pool);

}  // namespace videonsa
