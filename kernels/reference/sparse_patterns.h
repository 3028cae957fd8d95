#pragma once

#include <vector>

#include "kernels/attention/sparse_params.h"
#include "kernels/reference/attention_case.h"

namespace videonsa::reference {

/// visible[row][key]: which keys a query head sees under a pattern; fp64, straight from the
/// definition in kernels/attention/README.md.
std::vector<std::vector<uint8_t>> VisibleKeys(const AttentionCase& c, SparsePattern pattern,
                                              const SparseSettings& settings, int head);

}  // namespace videonsa::reference
