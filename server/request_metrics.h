#pragma once

#include <array>

#include "absl/status/status.h"
#include "runtime/api/generate_request.h"
#include "runtime/api/generate_result.h"
#include "runtime/telemetry/metrics.h"

namespace videonsa {

/// What ended questions report about themselves. Threads: any.
class RequestMetrics {
 public:
  explicit RequestMetrics(MetricsRegistry& registry);

  /// A question was refused before it started.
  void Refused(const absl::Status& status) const;
  /// A question ended. `result` counts only if `status` is OK.
  void Ended(const absl::Status& status, const GenerateResult& result, Priority priority) const;
  /// Time between two pieces of an answer, per token.
  void Gap(absl::Duration per_token) const;

 private:
  void CountAttention(const GenerateResult& result) const;

  std::array<Counter, 7> ended_;  // stop, length, context, deadline, drain, cancelled, error
  std::array<Counter, 8> refused_;
  std::array<Histogram, 3> queue_;  // by Priority
  Histogram prefill_, generate_, total_, gap_;
  std::array<Histogram, 3> first_token_;  // cache: miss, partial, hit
  std::array<Histogram, 5> stages_;       // fetch, decode, preprocess, tokenize, vision
  Counter text_tokens_, vision_tokens_, output_tokens_;
  Histogram request_text_tokens_, request_vision_tokens_, request_output_tokens_;
  std::array<Counter, 4> pairs_;  // compressed, selected, window, dense
  Counter dense_pairs_;
  Histogram budget_, coverage_;
  std::array<Histogram, 3> gates_;
  Counter clamped_;
  std::array<Counter, 7> modes_;  // by AttentionSemantics
};

}  // namespace videonsa
