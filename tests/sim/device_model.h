#pragma once

#include <cstdint>

#include "runtime/step/executor.h"

namespace videonsa::sim {

/// Seconds of work on one device, from counted operations and bytes.
///
/// Source: reference/kernels.md section 6 for one H200 with the 7B checkpoint in bf16 (5.2 GFLOP a
/// vision token, 13.8 GFLOP a prompt token, 401,408 FLOP a query-key pair over all heads and
/// layers, 14.14 GB of weights a decode step, 57,344 B of KV a token), at the share of the peak
/// that the plan of that section expects.
struct DeviceModel {
  double flops = 790e12;
  double bytes_per_second = 4.3e12;
  double compute_efficiency = 0.757;  ///< 0.83 s of work in 1.1 s at 32K tokens
  double memory_efficiency = 0.87;
  double vision_flop_per_token = 5.2e9;
  double prompt_flop_per_token = 13.8e9;
  double pair_flop = 401408;
  double weight_bytes = 14.14e9;
  double kv_bytes_per_token = 57344;
  double step_seconds = 2e-4;  ///< launches and the engine's turn, every step

  double VisionSeconds(double tokens) const;
  double PrefillSeconds(double tokens, double pairs) const;
  double DecodeSeconds(double kv_tokens) const;
};

/// Model and memory of one H200: 34,180 pages of 64 tokens remain beside weights and 8 GB of
/// workspace.
ExecutorInfo H200Info();

/// Prompt of a simulated request: text, a clip of 64 tokens a frame pair, the question.
struct PromptLayout {
  static constexpr int kTextBefore = 20;
  int vision_tokens = 0;
  int question_tokens = 0;

  int length() const { return kTextBefore + vision_tokens + question_tokens; }
  /// Query-key pairs of rows [0, row): causal NSA with 32 selected blocks and a window of 512 for
  /// everything before the question, dense for the question.
  int64_t PairsUpTo(int64_t row) const;
};

}  // namespace videonsa::sim
