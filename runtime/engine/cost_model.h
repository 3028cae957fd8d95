#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/step/executor.h"

namespace videonsa {

/// A line through the origin in a few features with the least squares of relative errors, so that
/// short steps count as much as long ones and one that was held up counts less; with exponential
/// forgetting; coefficients never below zero.
template <int N>
class OnlineFit {
 public:
  using Features = std::array<double, N>;
  using Gram = std::array<Features, N>;
  struct Point {
    Features x;
    double y = 0;
  };
  /// Without a Fit the first observation decides the size of all coefficients together; after it
  /// `prior` is believed like a few observations made at `typical`.
  OnlineFit(const Features& prior, const Features& typical);
  double Predict(const Features& x) const;
  /// Starts over with measurements. Those that took much longer than the others say are left out;
  /// what the rest does not tell (too few, all alike) is taken from the prior, at their level.
  /// From now on how coefficients compare is remembered for good, how large they are is not.
  void Fit(absl::Span<const Point> points);
  void Observe(const Features& x, double y);
  const Features& coefficients() const { return theta_; }

 private:
  // The prior at the level of the first observations, believed with `weight` at `typical`.
  void Begin(double level, double weight);
  void Add(const Features& x, double y);
  void Solve();

  Features theta_;
  Features typical_;
  bool begun_ = false;
  Gram gram_{};        // forgotten sum of x x^T / y^2
  Features moment_{};  // forgotten sum of x / y
  // What Fit found; all zero without it. Its level follows what is observed: least squares of
  // y = level * anchor x.
  Features anchor_{};
  double level_moment_ = 0, level_gram_ = 0;
};

/// Work of a step in the units that the cost model fits.
struct StepWork {
  double vision_slices = 0;
  double vision_patches = 0;
  double prefill_slices = 0;  ///< times share of layers
  double prefill_tokens = 0;  ///< tokens times share of layers
  double prefill_pairs = 0;   ///< query-key pairs, mean over layers
  double decode_rows = 0;
  double decode_kv_tokens = 0;  ///< cache lengths summed over decode rows
};

/// A step that was timed.
struct CostSample {
  StepWork work;
  double vision_seconds = 0;
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

/// Seconds of slices, fitted to slices timed at start (warm_up.h) and to what steps really take.
///
/// Owner: engine thread only; copyable, so that others may be given a snapshot.
class CostModel {
 public:
  /// Starts from a guess for a small CPU that Fit or the first steps correct.
  explicit CostModel(const ExecutorInfo& info);

  /// Starts over with `samples`; what they do not touch stays a guess. A pure function of them.
  void Fit(absl::Span<const CostSample> samples);

  /// Of work that is cut into `slices`.
  double VisionSeconds(double patches, double slices = 1) const;
  double PrefillSeconds(double tokens, double pairs, double slices = 1) const;
  double DecodeSeconds(double rows, double kv_tokens) const;
  double StepSeconds(const StepWork& work) const;

  /// Corrects the model with a finished step, all of whose `work` was done; returns how wrong the
  /// prediction for it was, as |predicted - real| / real, or a negative number if the step took no
  /// time.
  double Observe(const StepWork& work, const StepResult& result);

  /// Steps that corrected it; predictions are worth acting on from kCalibratedSteps on, or once
  /// prefill and decode were fitted.
  int64_t num_observed() const { return num_observed_; }
  bool calibrated() const { return fitted_ || num_observed_ >= kCalibratedSteps; }
  /// Samples of the last Fit.
  int64_t num_fitted() const { return num_fitted_; }
  /// Mean of |predicted - real| / real over recent steps, before them over the samples of Fit.
  double relative_error() const { return relative_error_; }
  /// What prefill and vision steps really take, as a multiple of the prediction, is above this in
  /// about one step of fifty; 1 or more. For budgets that are to be kept.
  double overrun() const { return overrun_; }
  /// One line of coefficients for status and logs.
  std::string ToString() const;

  static constexpr int64_t kCalibratedSteps = 32;

 private:
  // Adds to `sum` how wrong the model is for each phase of a sample; returns how many it has.
  int SumErrors(const CostSample& sample, double& sum) const;

  OnlineFit<2> vision_;   // slices, patches
  OnlineFit<3> prefill_;  // slices, tokens, pairs
  OnlineFit<3> decode_;   // constant, rows, cache tokens
  bool fitted_ = false;
  int64_t num_fitted_ = 0;
  double fit_error_ = 0;
  int64_t num_observed_ = 0;
  double relative_error_ = 0;
  double overrun_ = 1.1;
};

}  // namespace videonsa
