#include "tests/sim/trace.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace videonsa::sim {
namespace {

// Leaves room for question and answer in 131,072.
constexpr double kMaxVisionTokens = 122880;
constexpr double kBatchOfAnswers = 16;
constexpr double kRepeatShare = 0.25;  // requests about a clip that was asked about before
constexpr double kFramesDecodedPerSecond = 300;

struct ClassShape {
  Priority priority;
  double share;
  double median_vision, spread_vision;  // log-normal
  double mean_output;
  int max_output;
  double max_vision = kMaxVisionTokens;
};

constexpr ClassShape kClasses[] = {
    {Priority::kInteractive, 0.45, 6000, 0.7, 60, 256},
    {Priority::kStandard, 0.35, 20000, 0.7, 160, 512},
    {Priority::kBatch, 0.20, 60000, 0.5, 300, 1024},
};

// Of "answers": what batch work there is writes long texts about long clips.
constexpr ClassShape kAnswerClasses[] = {
    {Priority::kInteractive, 0.60, 6000, 0.7, 60, 256},
    {Priority::kStandard, 0.10, 20000, 0.7, 160, 512},
    {Priority::kBatch, 0.30, 60000, 0.3, 12000, 16000, 114688},
};

class TraceMaker {
 public:
  TraceMaker(absl::string_view name, uint64_t seed)
      : heavy_(name == "heavy"),
        bursts_(name == "bursts"),
        classes_(name == "answers" ? kAnswerClasses : kClasses),
        random_(seed) {}

  SimRequest Draw() {
    const double at = Uniform();
    const ClassShape& shape = at < classes_[0].share                       ? classes_[0]
                              : at < classes_[0].share + classes_[1].share ? classes_[1]
                                                                           : classes_[2];
    SimRequest request;
    request.priority = shape.priority;
    request.tenant = heavy_ && Uniform() < 0.5 ? 0 : 1 + static_cast<int>(random_() % 31);
    request.output_tokens = std::clamp(
        static_cast<int>(-shape.mean_output * std::log(1 - Uniform())) + 1, 1, shape.max_output);
    request.layout.question_tokens = 20 + static_cast<int>(random_() % 60);
    double vision = heavy_ ? 2000 * std::pow(1 - Uniform(), -1 / 1.1)
                           : shape.median_vision * std::exp(shape.spread_vision * Normal());
    vision = std::clamp(vision, 512.0, shape.max_vision);
    request.layout.vision_tokens = static_cast<int>(vision / 64) * 64;
    Repeat(request);
    const double frames = request.layout.vision_tokens / 32.0;
    request.media_seconds = 0.05 + frames / kFramesDecodedPerSecond / 8;  // eight decoders a clip
    const ClassLimits limits = LimitsOf(request.priority);
    request.ttft_limit = limits.ttft + request.media_seconds + 2 * IdleSeconds(request);
    request.gap_limit = limits.gap;
    request.patience = request.ttft_limit + limits.patience;
    return request;
  }

  // Seconds until the next request, at one a second on average.
  double Gap(double now, double rate) {
    const double mean = bursts_ ? Burst(now) : 1;
    return -std::log(1 - Uniform()) / (rate * mean);
  }

  double IdleSeconds(const SimRequest& request) const {
    const int length = request.layout.length();
    return device_.VisionSeconds(request.layout.vision_tokens) +
           device_.PrefillSeconds(length, static_cast<double>(request.layout.PairsUpTo(length)));
  }
  double WorkSeconds(const SimRequest& request) const {
    const double token = device_.DecodeSeconds(kBatchOfAnswers * request.layout.length());
    return IdleSeconds(request) + request.output_tokens * token / kBatchOfAnswers;
  }

 private:
  double Uniform() { return std::uniform_real_distribution<double>()(random_); }
  double Normal() { return std::normal_distribution<double>()(random_); }

  static double Burst(double now) { return std::fmod(now, 360) < 60 ? 4 : 0.4; }

  // Some clips are asked about again by their tenant.
  void Repeat(SimRequest& request) {
    if (!recent_.empty() && Uniform() < kRepeatShare) {
      const SimRequest& earlier = recent_[random_() % recent_.size()];
      request.clip = earlier.clip;
      request.tenant = earlier.tenant;
      request.layout.vision_tokens = earlier.layout.vision_tokens;
      return;
    }
    if (Uniform() > kRepeatShare) return;  // nobody will ask again
    request.clip = next_clip_++;
    if (recent_.size() < 256) {
      recent_.push_back(request);
    } else {
      recent_[random_() % recent_.size()] = request;
    }
  }

  const bool heavy_, bursts_;
  const ClassShape* const classes_;
  std::mt19937_64 random_;
  DeviceModel device_;
  std::vector<SimRequest> recent_;
  int next_clip_ = 0;
};

}  // namespace

const std::vector<std::string>& TraceNames() {
  static const std::vector<std::string> names = {"mix", "bursts", "heavy", "answers"};
  return names;
}

ClassLimits LimitsOf(Priority priority) {
  switch (priority) {
    case Priority::kInteractive:
      return {.ttft = 2, .gap = 0.1, .patience = 60};
    case Priority::kStandard:
      return {.ttft = 15, .gap = 0.2, .patience = 180};
    case Priority::kBatch:
      return {.ttft = 300, .gap = 2, .patience = 3600};
  }
  return {};
}

absl::StatusOr<std::vector<SimRequest>> MakeTrace(absl::string_view name, int requests, int workers,
                                                  double load, uint64_t seed) {
  if (std::find(TraceNames().begin(), TraceNames().end(), name) == TraceNames().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("trace \"", name, "\" is none of ", absl::StrJoin(TraceNames(), ", ")));
  }
  TraceMaker maker(name, seed);
  std::vector<SimRequest> trace;
  trace.reserve(requests);
  double work = 0;
  for (int i = 0; i < requests; ++i) {
    trace.push_back(maker.Draw());
    work += maker.WorkSeconds(trace.back());
  }
  const double rate = load * workers * requests / work;
  double now = 0;
  for (SimRequest& request : trace) {
    now += maker.Gap(now, rate);
    request.arrival = now;
  }
  return trace;
}

}  // namespace videonsa::sim
