#include "runtime/engine/cost_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"

namespace videonsa {
namespace {

constexpr double kForget = 0.98;      // memory of about 50 steps
constexpr double kPriorWeight = 2.0;  // observations that the prior stands for
constexpr double kRidge = 1e-6;       // keeps features that never vary together solvable
constexpr double kErrorSmoothing = 0.1;
// The overrun follows a quantile: a step above it moves it up, one below moves it down by as much
// less as such steps are more frequent.
constexpr double kOverrunQuantile = 0.98;
constexpr double kOverrunStep = 0.05;
constexpr double kMaxOverrun = 2;
constexpr double kGuessFlopsPerSecond = 2e11;
constexpr double kGuessBytesPerSecond = 1e10;

// Solves a x = b for a symmetric positive matrix of a few rows by Gaussian elimination.
template <int N>
std::array<double, N> Solve(std::array<std::array<double, N>, N> a, std::array<double, N> b) {
  for (int col = 0; col < N; ++col) {
    int pivot = col;
    for (int row = col + 1; row < N; ++row) {
      if (std::abs(a[row][col]) > std::abs(a[pivot][col])) pivot = row;
    }
    std::swap(a[col], a[pivot]);
    std::swap(b[col], b[pivot]);
    if (a[col][col] == 0) continue;
    for (int row = col + 1; row < N; ++row) {
      const double factor = a[row][col] / a[col][col];
      for (int k = col; k < N; ++k) a[row][k] -= factor * a[col][k];
      b[row] -= factor * b[col];
    }
  }
  std::array<double, N> x{};
  for (int row = N; row-- > 0;) {
    double sum = b[row];
    for (int k = row + 1; k < N; ++k) sum -= a[row][k] * x[k];
    x[row] = a[row][row] == 0 ? 0 : sum / a[row][row];
  }
  return x;
}

double LayerParameters(const ExecutorInfo& info) {
  return 12.0 * info.hidden_size * info.hidden_size * info.num_layers;
}

OnlineFit<3> PrefillPrior(const ExecutorInfo& info) {
  const double token = 2 * LayerParameters(info) / kGuessFlopsPerSecond;
  const double pair =
      4.0 * info.num_q_heads * info.head_dim * info.num_layers / kGuessFlopsPerSecond;
  return OnlineFit<3>({1e-4, token, pair}, {1, 256, 65536});
}

OnlineFit<3> DecodePrior(const ExecutorInfo& info) {
  const double constant = 2 * LayerParameters(info) / kGuessBytesPerSecond;
  const double kv_token =
      4.0 * info.num_kv_heads * info.head_dim * info.num_layers / kGuessBytesPerSecond;
  return OnlineFit<3>({1e-4 + constant, constant * 0.1, kv_token}, {1, 4, 4096});
}

}  // namespace

template <int N>
OnlineFit<N>::OnlineFit(const Features& prior, const Features& typical)
    : theta_(prior), typical_(typical) {}

template <int N>
void OnlineFit<N>::Begin(const Features& x, double y) {
  // How fast this machine is nobody knows before; how its costs compare, the prior does.
  const double guess = Predict(x);
  for (double& value : theta_) value *= guess > 0 ? y / guess : 1;
  const double usual = Predict(typical_);
  for (int i = 0; i < N; ++i) {
    gram_[i].fill(0);
    // Every coefficient is believed on its own, at the size the feature usually has.
    gram_[i][i] = kPriorWeight * typical_[i] * typical_[i] / (usual * usual);
    moment_[i] = gram_[i][i] * theta_[i];
  }
}

template <int N>
double OnlineFit<N>::Predict(const Features& x) const {
  double sum = 0;
  for (int i = 0; i < N; ++i) sum += theta_[i] * x[i];
  return sum;
}

template <int N>
void OnlineFit<N>::Observe(const Features& x, double y) {
  if (y <= 0) return;
  if (!std::exchange(begun_, true)) Begin(x, y);
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) gram_[i][j] = kForget * gram_[i][j] + x[i] * x[j] / (y * y);
    moment_[i] = kForget * moment_[i] + x[i] / y;
  }
  auto ridged = gram_;
  auto moment = moment_;
  for (int i = 0; i < N; ++i) {
    ridged[i][i] += kRidge * gram_[i][i] + 1e-300;
    moment[i] += kRidge * gram_[i][i] * theta_[i];
  }
  theta_ = Solve<N>(ridged, moment);
  // A coefficient below zero means that its feature explains nothing here: drop it and fit the
  // others again, which is exact for one such feature and good enough for two.
  for (int round = 0; round < N; ++round) {
    int worst = -1;
    for (int i = 0; i < N; ++i) {
      if (theta_[i] < 0 && (worst < 0 || theta_[i] < theta_[worst])) worst = i;
    }
    if (worst < 0) break;
    for (int i = 0; i < N; ++i) ridged[worst][i] = ridged[i][worst] = 0;
    ridged[worst][worst] = 1;
    moment[worst] = 0;
    theta_ = Solve<N>(ridged, moment);
  }
  for (double& value : theta_) value = std::max(value, 0.0);
}

template class OnlineFit<1>;
template class OnlineFit<3>;

CostModel::CostModel(const ExecutorInfo& info)
    : vision_({4e-4}, {1024}), prefill_(PrefillPrior(info)), decode_(DecodePrior(info)) {}

double CostModel::VisionSeconds(double patches) const { return vision_.Predict({patches}); }

double CostModel::PrefillSeconds(double tokens, double pairs) const {
  return tokens <= 0 ? 0 : prefill_.Predict({1, tokens, pairs});
}

double CostModel::DecodeSeconds(double rows, double kv_tokens) const {
  return rows <= 0 ? 0 : decode_.Predict({1, rows, kv_tokens});
}

double CostModel::StepSeconds(const StepWork& work) const {
  return VisionSeconds(work.vision_patches) +
         PrefillSeconds(work.prefill_tokens, work.prefill_pairs) +
         DecodeSeconds(work.decode_rows, work.decode_kv_tokens);
}

double CostModel::Observe(const StepWork& work, const StepResult& result) {
  const double real =
      absl::ToDoubleSeconds(result.vision_time + result.prefill_time + result.decode_time);
  if (real <= 0) return -1;
  const double error = std::abs(StepSeconds(work) - real) / real;
  relative_error_ =
      num_observed_ == 0 ? error : relative_error_ + kErrorSmoothing * (error - relative_error_);
  ++num_observed_;
  if (work.prefill_tokens > 0 || work.vision_patches > 0) {
    const bool above = real > StepSeconds(work) * overrun_;
    overrun_ += kOverrunStep * (above ? kOverrunQuantile : kOverrunQuantile - 1);
    overrun_ = std::clamp(overrun_, 1.0, kMaxOverrun);
  }
  if (work.vision_patches > 0) {
    vision_.Observe({work.vision_patches}, absl::ToDoubleSeconds(result.vision_time));
  }
  if (work.prefill_tokens > 0) {
    prefill_.Observe({1, work.prefill_tokens, work.prefill_pairs},
                     absl::ToDoubleSeconds(result.prefill_time));
  }
  if (work.decode_rows > 0) {
    decode_.Observe({1, work.decode_rows, work.decode_kv_tokens},
                    absl::ToDoubleSeconds(result.decode_time));
  }
  return error;
}

std::string CostModel::ToString() const {
  return absl::StrFormat(
      "vision %.3g s/patch; prefill %.3g s + %.3g s/token + %.3g s/pair; decode %.3g s + "
      "%.3g s/row + %.3g s/cached token; steps %d; error %.0f %%",
      vision_.coefficients()[0], prefill_.coefficients()[0], prefill_.coefficients()[1],
      prefill_.coefficients()[2], decode_.coefficients()[0], decode_.coefficients()[1],
      decode_.coefficients()[2], num_observed_, 100 * relative_error_);
}

}  // namespace videonsa
