#pragma once

#include "kernels/common/thread_pool.h"
#include "kernels/nsa/nsa_params.h"

namespace videonsa {

/// Scratch bytes of CausalNsaPrefill for any chunk that ends at or before `max_len`.
size_t CausalNsaScratchBytes(int num_threads, int num_q_heads, const PagedKv& kv, int max_len,
                             int selected_blocks);

/// causal_nsa of a chunk of prompt rows: compression, choice, window and selection of its vision
/// rows, gated and summed; dense attention of its text rows.
///
/// Work shared by the query heads of a KV head is done once: one choice, one walk over the union of
/// the blocks that neighbouring rows chose.
/// Numerics: pooled products and scores are fp32 whatever `math` says.
/// Source: attention.md section 3.
void CausalNsaPrefill(const CausalNsaParams& params, Scratch scratch, ThreadPool& pool);

}  // namespace videonsa
