#include "client/bench/plan.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

// Uniform in (0, 1), the same on every platform (the standard's distributions are not).
double Uniform(std::mt19937_64& random) {
  return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53;
}

double Normal(std::mt19937_64& random) {
  return std::sqrt(-2 * std::log(Uniform(random))) * std::cos(2 * M_PI * Uniform(random));
}

// Gamma with mean 1 (Marsaglia and Tsang, 2000); shapes below 1 by the usual power of a uniform.
double Gamma(std::mt19937_64& random, double shape) {
  const double k = shape < 1 ? shape + 1 : shape;
  const double d = k - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  double value = 0;
  while (value <= 0) {
    const double x = Normal(random);
    const double v = std::pow(1 + c * x, 3);
    if (v <= 0) continue;
    if (std::log(Uniform(random)) < x * x / 2 + d - d * v + d * std::log(v)) value = d * v;
  }
  if (shape < 1) value *= std::pow(Uniform(random), 1 / shape);
  return value / shape;
}

double Gap(std::mt19937_64& random, const ArrivalSpec& arrival) {
  const double gap = arrival.kind == ArrivalSpec::Kind::kGamma ? Gamma(random, arrival.gamma_shape)
                                                               : -std::log(Uniform(random));
  return gap / arrival.rate;
}

RequestKind PickKind(std::mt19937_64& random,
                     const std::vector<std::pair<RequestKind, double>>& mix) {
  double sum = 0;
  for (const auto& [kind, weight] : mix) sum += weight;
  double at = Uniform(random) * sum;
  for (const auto& [kind, weight] : mix) {
    if ((at -= weight) < 0) return kind;
  }
  return mix.back().first;
}

}  // namespace

std::vector<PlannedRequest> MakePlan(const PlanSpec& spec) {
  // Times and choices come from streams of their own: another mix keeps the same arrival times.
  std::mt19937_64 times(spec.seed), choices(spec.seed ^ 0x9e3779b97f4a7c15);
  std::vector<PlannedRequest> plan;
  const bool trace = spec.arrival.kind == ArrivalSpec::Kind::kTrace;
  const bool open = spec.arrival.open();
  double at = 0;
  for (int64_t index = 0;; ++index) {
    int item = -1;
    if (trace) {
      if (index == static_cast<int64_t>(spec.arrival.trace.size())) break;
      at = spec.arrival.trace[index].first;
      item = spec.arrival.trace[index].second;
    } else if (spec.arrival.kind == ArrivalSpec::Kind::kConstant) {
      at = static_cast<double>(index) / spec.arrival.rate;  // adding up gaps would drift
    } else if (open && index > 0) {
      at += Gap(times, spec.arrival);
    }
    if (spec.requests > 0 && index >= spec.requests + spec.warmup_requests) break;
    if (open && spec.duration_s > 0 && at >= spec.duration_s + spec.warmup_s) break;
    if (!open && spec.requests <= 0 && index >= 1'000'000) break;
    PlannedRequest request{.index = index, .at_s = at};
    request.kind = PickKind(choices, spec.mix);
    const int drawn = static_cast<int>(Uniform(choices) * spec.items);
    request.item = item >= 0 ? item % spec.items : std::min(drawn, spec.items - 1);
    request.cold = Uniform(choices) < spec.cold_share;
    request.slow_reader = Uniform(choices) < spec.slow_reader_share;
    const double cancel = Uniform(choices), when = Uniform(choices);
    if (cancel < spec.cancel_rate) request.cancel_after_s = when * spec.cancel_within_s;
    request.warmup = index < spec.warmup_requests || (open && at < spec.warmup_s);
    plan.push_back(request);
  }
  return plan;
}

absl::Status ParseArrival(absl::string_view text, ArrivalSpec& arrival) {
  if (text == "poisson") {
    arrival.kind = ArrivalSpec::Kind::kPoisson;
  } else if (text == "constant") {
    arrival.kind = ArrivalSpec::Kind::kConstant;
  } else if (absl::ConsumePrefix(&text, "gamma:")) {
    arrival.kind = ArrivalSpec::Kind::kGamma;
    if (!absl::SimpleAtod(text, &arrival.gamma_shape) || !(arrival.gamma_shape >= 0.01) ||
        arrival.gamma_shape > 1000) {
      return absl::InvalidArgumentError(
          absl::StrCat("--arrival: gamma shape \"", text, "\" is not in [0.01, 1000]"));
    }
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("--arrival: \"", text, "\" is none of poisson, constant, gamma:SHAPE"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::pair<double, int>>> ParseTrace(absl::string_view text) {
  std::vector<std::pair<double, int>> trace;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const auto value = ParseJson(line);
    const double at = value.ok() ? NumberAt(*value, "at_s", -1) : -1;
    if (!(at >= 0) || (!trace.empty() && at < trace.back().first)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "trace line ", number, ": needs {\"at_s\": SECONDS}, not before the line above"));
    }
    trace.emplace_back(at, static_cast<int>(NumberAt(*value, "item", -1)));
  }
  if (trace.empty()) return absl::InvalidArgumentError("the trace is empty");
  return trace;
}

absl::StatusOr<std::vector<std::pair<RequestKind, double>>> ParseMix(absl::string_view text) {
  std::vector<std::pair<RequestKind, double>> mix;
  double sum = 0;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(part, absl::MaxSplits('=', 1));
    double weight = 0;
    const bool number = absl::SimpleAtod(pair.second, &weight) && weight >= 0 && weight < 1e9;
    RequestKind kind = RequestKind::kAsk;
    bool known = false;
    for (const RequestKind one :
         {RequestKind::kAsk, RequestKind::kUpload, RequestKind::kEstimate}) {
      if (pair.first == KindName(one)) {
        kind = one;
        known = true;
      }
    }
    if (!number || !known) {
      return absl::InvalidArgumentError(
          absl::StrCat("--mix: \"", part,
                       "\" is no share of ask, upload or estimate; write ask=0.8,upload=0.2"));
    }
    mix.emplace_back(kind, weight);
    sum += weight;
  }
  if (sum <= 0) return absl::InvalidArgumentError("--mix: all shares are 0");
  return mix;
}

const char* KindName(RequestKind kind) {
  switch (kind) {
    case RequestKind::kUpload:
      return "upload";
    case RequestKind::kEstimate:
      return "estimate";
    case RequestKind::kAsk:
      break;
  }
  return "ask";
}

}  // namespace videonsa::client
