#include "runtime/engine/cost_model.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"

namespace videonsa {
namespace {

constexpr double kForget = 0.98;      // memory of about 50 steps
constexpr double kPriorWeight = 2.0;  // observations that the prior stands for
constexpr double kRidge = 1e-6;       // keeps features that never vary together solvable
// Measurements that the prior stands for beside those of a Fit: little, but enough to decide what
// they leave open or what noise would.
constexpr double kFitPriorWeight = 0.05;
// Observations that the shape of a Fit stands for, for good, and its level, until it is forgotten.
constexpr double kAnchorWeight = 3.0;
constexpr double kFitWeight = 5.0;
constexpr double kForgetLevel = 0.9;
// Of a Fit: who took longer than so many times the prediction was held up.
constexpr double kHeldUp = 1.5;
constexpr int kMaxFitRounds = 4;
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
std::array<double, N> SolveLinear(std::array<std::array<double, N>, N> a, std::array<double, N> b) {
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
void OnlineFit<N>::Begin(double level, double weight) {
  // How fast this machine is nobody knows before; how its costs compare, the prior does.
  for (double& value : theta_) value *= level;
  const double usual = Predict(typical_);
  for (int i = 0; i < N; ++i) {
    gram_[i].fill(0);
    // Every coefficient is believed on its own, at the size the feature usually has.
    gram_[i][i] = weight * typical_[i] * typical_[i] / (usual * usual);
    moment_[i] = gram_[i][i] * theta_[i];
  }
  begun_ = true;
}

template <int N>
double OnlineFit<N>::Predict(const Features& x) const {
  double sum = 0;
  for (int i = 0; i < N; ++i) sum += theta_[i] * x[i];
  return sum;
}

template <int N>
void OnlineFit<N>::Add(const Features& x, double y) {
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) gram_[i][j] += x[i] * x[j] / (y * y);
    moment_[i] += x[i] / y;
  }
}

template <int N>
void OnlineFit<N>::Solve() {
  Gram gram = gram_;
  Features moment = moment_;
  double usual = 0;
  for (int i = 0; i < N; ++i) usual += anchor_[i] * typical_[i];
  const double level = level_gram_ > 0 ? level_moment_ / level_gram_ : 0;
  for (int i = 0; i < N; ++i) {
    gram[i][i] += kRidge * gram_[i][i] + 1e-300;
    moment[i] += kRidge * gram_[i][i] * theta_[i];
    if (usual <= 0) continue;
    const double size = typical_[i] / (level * usual);
    gram[i][i] += kAnchorWeight * size * size;
    moment[i] += kAnchorWeight * size * size * level * anchor_[i];
  }
  theta_ = SolveLinear<N>(gram, moment);
  // A coefficient below zero means that its feature explains nothing here: drop it and fit the
  // others again, which is exact for one such feature and good enough for two.
  for (int round = 0; round < N; ++round) {
    int worst = -1;
    for (int i = 0; i < N; ++i) {
      if (theta_[i] < 0 && (worst < 0 || theta_[i] < theta_[worst])) worst = i;
    }
    if (worst < 0) break;
    for (int i = 0; i < N; ++i) gram[worst][i] = gram[i][worst] = 0;
    gram[worst][worst] = 1;
    moment[worst] = 0;
    theta_ = SolveLinear<N>(gram, moment);
  }
  for (double& value : theta_) value = std::max(value, 0.0);
}

template <int N>
void OnlineFit<N>::Fit(absl::Span<const Point> points) {
  std::vector<Point> usable;
  std::vector<double> levels;
  for (const Point& point : points) {
    const double guess = Predict(point.x);
    if (!(point.y > 0 && std::isfinite(point.y) && guess > 0 && std::isfinite(guess))) continue;
    usable.push_back(point);
    levels.push_back(point.y / guess);
  }
  if (usable.empty()) return;
  std::nth_element(levels.begin(), levels.begin() + levels.size() / 2, levels.end());
  const double level = levels[levels.size() / 2];
  const Features prior = theta_;
  anchor_.fill(0);
  std::vector<bool> held_up(usable.size(), false);
  for (int round = 0; round < kMaxFitRounds; ++round) {
    theta_ = prior;
    Begin(level, kFitPriorWeight);
    for (size_t i = 0; i < usable.size(); ++i) {
      if (!held_up[i]) Add(usable[i].x, usable[i].y);
    }
    Solve();
    bool changed = false;
    for (size_t i = 0; i < usable.size(); ++i) {
      const bool slow = usable[i].y > kHeldUp * Predict(usable[i].x);
      changed = changed || slow != held_up[i];
      held_up[i] = slow;
    }
    // Half of them are not exceptions.
    const auto slow = static_cast<size_t>(std::count(held_up.begin(), held_up.end(), true));
    if (!changed || 2 * slow >= usable.size()) break;
  }
  anchor_ = theta_;
  level_moment_ = level_gram_ = 1;
  const double weight = std::min(1.0, kFitWeight / static_cast<double>(usable.size()));
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) gram_[i][j] *= weight;
    moment_[i] *= weight;
  }
}

template <int N>
void OnlineFit<N>::Observe(const Features& x, double y) {
  if (y <= 0) return;
  if (!begun_) {
    const double guess = Predict(x);
    Begin(guess > 0 ? y / guess : 1, kPriorWeight);
  }
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) gram_[i][j] *= kForget;
    moment_[i] *= kForget;
  }
  Add(x, y);
  double anchored = 0;
  for (int i = 0; i < N; ++i) anchored += anchor_[i] * x[i];
  level_moment_ = kForgetLevel * level_moment_ + anchored / y;
  level_gram_ = kForgetLevel * level_gram_ + anchored * anchored / (y * y);
  Solve();
}

template class OnlineFit<2>;
template class OnlineFit<3>;

CostModel::CostModel(const ExecutorInfo& info)
    : vision_({1e-3, 4e-4}, {1, 1024}), prefill_(PrefillPrior(info)), decode_(DecodePrior(info)) {}

double CostModel::VisionSeconds(double patches, double slices) const {
  return patches <= 0 ? 0 : vision_.Predict({slices, patches});
}

double CostModel::PrefillSeconds(double tokens, double pairs, double slices) const {
  return tokens <= 0 ? 0 : prefill_.Predict({slices, tokens, pairs});
}

double CostModel::DecodeSeconds(double rows, double kv_tokens) const {
  return rows <= 0 ? 0 : decode_.Predict({1, rows, kv_tokens});
}

double CostModel::StepSeconds(const StepWork& work) const {
  return VisionSeconds(work.vision_patches, work.vision_slices) +
         PrefillSeconds(work.prefill_tokens, work.prefill_pairs, work.prefill_slices) +
         DecodeSeconds(work.decode_rows, work.decode_kv_tokens);
}

int CostModel::SumErrors(const CostSample& sample, double& sum) const {
  const StepWork& work = sample.work;
  const std::pair<double, double> phases[] = {
      {VisionSeconds(work.vision_patches, work.vision_slices), sample.vision_seconds},
      {PrefillSeconds(work.prefill_tokens, work.prefill_pairs, work.prefill_slices),
       sample.prefill_seconds},
      {DecodeSeconds(work.decode_rows, work.decode_kv_tokens), sample.decode_seconds}};
  int count = 0;
  for (const auto& [predicted, real] : phases) {
    if (predicted <= 0 || real <= 0) continue;
    sum += std::abs(predicted - real) / real;
    ++count;
  }
  return count;
}

void CostModel::Fit(absl::Span<const CostSample> samples) {
  if (samples.empty()) return;
  std::vector<OnlineFit<2>::Point> vision;
  std::vector<OnlineFit<3>::Point> prefill, decode;
  for (const CostSample& sample : samples) {
    const StepWork& work = sample.work;
    if (work.vision_patches > 0) {
      vision.push_back({{work.vision_slices, work.vision_patches}, sample.vision_seconds});
    }
    if (work.prefill_tokens > 0) {
      prefill.push_back(
          {{work.prefill_slices, work.prefill_tokens, work.prefill_pairs}, sample.prefill_seconds});
    }
    if (work.decode_rows > 0) {
      decode.push_back({{1, work.decode_rows, work.decode_kv_tokens}, sample.decode_seconds});
    }
  }
  vision_.Fit(vision);
  prefill_.Fit(prefill);
  decode_.Fit(decode);
  fitted_ = !prefill.empty() && !decode.empty();
  num_fitted_ = static_cast<int64_t>(samples.size());
  double sum = 0;
  int count = 0;
  for (const CostSample& sample : samples) count += SumErrors(sample, sum);
  fit_error_ = count == 0 ? 0 : sum / count;
  if (num_observed_ == 0) relative_error_ = fit_error_;
}

double CostModel::Observe(const StepWork& work, const StepResult& result) {
  const double real =
      absl::ToDoubleSeconds(result.vision_time + result.prefill_time + result.decode_time);
  if (real <= 0) return -1;
  const double error = std::abs(StepSeconds(work) - real) / real;
  const bool first = num_observed_ == 0 && num_fitted_ == 0;
  relative_error_ = first ? error : relative_error_ + kErrorSmoothing * (error - relative_error_);
  ++num_observed_;
  if (work.prefill_tokens > 0 || work.vision_patches > 0) {
    const bool above = real > StepSeconds(work) * overrun_;
    overrun_ += kOverrunStep * (above ? kOverrunQuantile : kOverrunQuantile - 1);
    overrun_ = std::clamp(overrun_, 1.0, kMaxOverrun);
  }
  if (work.vision_patches > 0) {
    vision_.Observe({work.vision_slices, work.vision_patches},
                    absl::ToDoubleSeconds(result.vision_time));
  }
  if (work.prefill_tokens > 0) {
    prefill_.Observe({work.prefill_slices, work.prefill_tokens, work.prefill_pairs},
                     absl::ToDoubleSeconds(result.prefill_time));
  }
  if (work.decode_rows > 0) {
    decode_.Observe({1, work.decode_rows, work.decode_kv_tokens},
                    absl::ToDoubleSeconds(result.decode_time));
  }
  return error;
}

std::string CostModel::ToString() const {
  const auto& vision = vision_.coefficients();
  const auto& prefill = prefill_.coefficients();
  const auto& decode = decode_.coefficients();
  return absl::StrFormat(
      "vision %.3g s + %.3g s/patch; prefill %.3g s + %.3g s/token + %.3g s/pair; decode %.3g s + "
      "%.3g s/row + %.3g s/cached token; fitted to %d slices at start within %.0f %%; "
      "corrected by %d steps; error %.0f %%",
      vision[0], vision[1], prefill[0], prefill[1], prefill[2], decode[0], decode[1], decode[2],
      num_fitted_, 100 * fit_error_, num_observed_, 100 * relative_error_);
}

}  // namespace videonsa
