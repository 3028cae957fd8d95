#pragma once

#include "kernels/attention/attention_params.h"
#include "kernels/common/thread_pool.h"

namespace videonsa {

/// Writes new tokens into their pages and pools the pages that become full.
///
/// Threads: tasks on `pool`; different sequences one after the other.
/// Numerics: BF16 pages round to nearest even; pooled rows are fp32 means of the stored values,
///           summed token by token in order, so they do not depend on how tokens arrived.
void AppendKv(const KvAppendParams& params, ThreadPool& pool);

}  // namespace videonsa
