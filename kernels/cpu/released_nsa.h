#pragma once

#include "kernels/common/thread_pool.h"
#include "kernels/nsa/nsa_params.h"

namespace videonsa {

/// Scratch bytes of ReleasedNsaPrefill for a prompt of at most `max_len` tokens.
size_t ReleasedNsaScratchBytes(int num_threads, const PagedKv& kv, int max_len,
                               int selected_blocks);

/// released_nsa of a whole prompt, one layer: what the released PyTorch code computes, quirks
/// included (kernels/nsa/README.md).
///
/// The 64 slots are never materialised: each KV head serves 16 (the last one 8) query heads
/// directly, zero slots enter the scores as a constant, zeroed keys are a mask over the sequence's
/// own pages, text rows and running means are differences of sums of values.
/// Source: attention.md section 4.
void ReleasedNsaPrefill(const ReleasedNsaParams& params, Scratch scratch, ThreadPool& pool);

}  // namespace videonsa
