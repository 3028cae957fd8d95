#pragma once

#include <cstdint>

namespace videonsa::bench {

/// Best seconds of oneDNN's own matmul [m, k] x [k, n] in bf16 (fp32 if `bf16` is false), fp32
/// output, weights in the layout that oneDNN prefers, on `threads` OpenMP threads.
double OneDnnSeconds(int64_t m, int64_t n, int64_t k, bool bf16, int threads, int repeats);

}  // namespace videonsa::bench
