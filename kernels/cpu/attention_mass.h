#pragma once

#include "kernels/attention/attention_params.h"
#include "kernels/common/thread_pool.h"

namespace videonsa {

/// Scratch bytes of AddAttentionMass for rows below `max_len`.
size_t AttentionMassScratchBytes(int num_threads, int num_q_heads, int num_kv_heads, int max_len);

/// Adds the softmax mass by block of a few rows (evidence); see AttentionMassParams. Costs about
/// half of those rows' dense attention; meant for the last rows of a prompt.
///
/// Numerics: fp32 products and weights, fp64 sums over rows.
void AddAttentionMass(const AttentionMassParams& params, Scratch scratch, ThreadPool& pool);

}  // namespace videonsa
