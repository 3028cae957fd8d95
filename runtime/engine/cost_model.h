#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// A line through the origin in a few features with the least squares of relative errors, so that
/// short steps count as much as long ones and one that was held up counts less; with exponential
/// forgetting; coefficients never below zero.
template <int N>
class OnlineFit {
 public:
  using Features = std::array<double, N>;
  /// The first observation decides the size of all coefficients together; after it `prior` is
  /// believed like a few observations made at `typical`.
  OnlineFit(const Features& prior, const Features& typical);
  double Predict(const Features& x) const;
  void Observe(const Features& x, double y);
  const Features& coefficients() const { return theta_; }

 private:
  void Begin(const Features& x, double y);

  Features theta_;
  Features typical_;
  bool begun_ = false;
  std::array<std::array<double, N>, N> gram_{};  // forgotten sum of x x^T / y^2
  std::array<double, N> moment_{};               // forgotten sum of x / y
};

/// Work of a step in the units that the cost model fits.
struct StepWork {
  double vision_patches = 0;
  double prefill_tokens = 0;  ///< tokens times share of layers
  double prefill_pairs = 0;   ///< query-key pairs, mean over layers
  double decode_rows = 0;
  double decode_kv_tokens = 0;  ///< cache lengths summed over decode rows
};

/// Seconds of slices, fitted to what steps really took.
///
/// Owner: engine thread only; copyable, so that others may be given a snapshot.
class CostModel {
 public:
  /// Starts from a guess for a small CPU that the first steps correct.
  explicit CostModel(const ExecutorInfo& info);

  double VisionSeconds(double patches) const;
  double PrefillSeconds(double tokens, double pairs) const;
  double DecodeSeconds(double rows, double kv_tokens) const;
  double StepSeconds(const StepWork& work) const;

  /// Corrects the model with a finished step, all of whose `work` was done; returns how wrong the
  /// prediction for it was, as |predicted - real| / real, or a negative number if the step took no
  /// time.
  double Observe(const StepWork& work, const StepResult& result);

  /// Steps that the fit has seen; predictions are worth acting on from kCalibratedSteps on.
  int64_t num_observed() const { return num_observed_; }
  bool calibrated() const { return num_observed_ >= kCalibratedSteps; }
  /// Mean of |predicted - real| / real over recent steps.
  double relative_error() const { return relative_error_; }
  /// What prefill and vision steps really take, as a multiple of the prediction, is above this in
  /// about one step of fifty; 1 or more. For budgets that are to be kept.
  double overrun() const { return overrun_; }
  /// One line of coefficients for status and logs.
  std::string ToString() const;

  static constexpr int64_t kCalibratedSteps = 32;

 private:
  OnlineFit<1> vision_;
  OnlineFit<3> prefill_;  // constant, tokens, pairs
  OnlineFit<3> decode_;   // constant, rows, cache tokens
  int64_t num_observed_ = 0;
  double relative_error_ = 0;
  double overrun_ = 1.1;
};

}  // namespace videonsa
