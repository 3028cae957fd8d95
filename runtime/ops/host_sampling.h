#pragma once

#include <vector>

#include "runtime/ops/sample_task.h"

namespace videonsa {

/// Chooses a token from one row of logits [vocab] on the host, which are overwritten; fills the
/// task's results. `scratch` grows to what is needed once.
void SampleOnHost(float* logits, int vocab, SampleTask& task, std::vector<int32_t>& scratch);

}  // namespace videonsa
