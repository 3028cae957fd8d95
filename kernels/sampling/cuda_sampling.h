#pragma once

#include "kernels/common/cuda_launch.h"

namespace videonsa {

/// How one row is sampled; the meaning of kernels/cpu/sample_token.h. Read on the device.
struct CudaSampleSettings {
  float temperature = 0;  ///< 0 is greedy, ties to the lowest id
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;
  float repetition_penalty = 1;
  int32_t num_seen = 0;
  int32_t num_suppressed = 0;
  double uniform = 0;                   ///< UniformOf(seed, step), made by the host
  const int32_t* seen = nullptr;        ///< device; distinct ids
  const int32_t* suppressed = nullptr;  ///< device
};

/// Chooses the next token of several rows.
///
/// Shapes: logits [num_rows, vocab] fp32, penalties and suppression are applied in place;
///         settings [num_rows] on the device; ids [num_rows] int32, overwritten;
///         log_probs [num_rows] fp32 or null: log softmax of the chosen id before penalties
/// Candidates are walked best first, ties to the lower id, as on the CPU; weights are fp64 and
/// summed in another order, so a draw within rounding (about 1e-12) of a border may differ.
/// NaN logits never win; if nothing is left, id 0.
struct CudaSampleParams {
  float* logits = nullptr;
  int64_t logits_stride = 0;
  const CudaSampleSettings* settings = nullptr;
  int32_t* ids = nullptr;
  float* log_probs = nullptr;
  int num_rows = 0;
  int vocab = 0;
};
[[nodiscard]] CudaStatus LaunchSample(const CudaSampleParams& params, CudaStream stream);

}  // namespace videonsa
