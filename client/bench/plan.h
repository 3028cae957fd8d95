#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace videonsa::client {

/// When requests are sent.
struct ArrivalSpec {
  enum class Kind { kPoisson, kConstant, kGamma, kTrace, kClosed };
  Kind kind = Kind::kPoisson;
  double rate = 1;                            ///< requests a second (open loop)
  double gamma_shape = 1;                     ///< below 1 is burstier than Poisson
  int concurrency = 1;                        ///< closed loop: users that wait for their answer
  std::vector<std::pair<double, int>> trace;  ///< (second, item or -1)

  bool open() const { return kind != Kind::kClosed; }
};

/// What a request does.
enum class RequestKind { kAsk, kUpload, kEstimate };

/// One request of the plan. Everything chance decides is decided here, from the seed.
struct PlannedRequest {
  int64_t index = 0;
  double at_s = 0;  ///< scheduled start after the beginning; closed loop: 0
  RequestKind kind = RequestKind::kAsk;
  int item = 0;
  bool warmup = false;         ///< not measured
  bool cold = false;           ///< the clip's bytes are made new, so that nothing can be reused
  bool slow_reader = false;    ///< waits before every read
  double cancel_after_s = -1;  ///< after the start; negative: never
};

/// What the plan is made from.
struct PlanSpec {
  ArrivalSpec arrival;
  int64_t requests = 100;  ///< 0: bounded by duration alone
  double duration_s = 0;   ///< 0: bounded by requests alone
  int64_t warmup_requests = 0;
  double warmup_s = 0;
  int items = 1;
  std::vector<std::pair<RequestKind, double>> mix = {{RequestKind::kAsk, 1.0}};
  double cold_share = 0;
  double cancel_rate = 0;
  double cancel_within_s = 2;
  double slow_reader_share = 0;
  uint64_t seed = 1;
};

/// All requests in order of their start. Warm-up comes first and adds to the number asked for.
///
/// Requires: requests or duration_s is positive (a trace bounds itself); items > 0.
std::vector<PlannedRequest> MakePlan(const PlanSpec& spec);

/// "poisson", "constant", "gamma:0.5"; fills kind and shape.
/// Errors: INVALID_ARGUMENT.
absl::Status ParseArrival(absl::string_view text, ArrivalSpec& arrival);

/// Lines {"at_s": 0.5, "item": 3}; item may be missing. Errors: INVALID_ARGUMENT with the line.
absl::StatusOr<std::vector<std::pair<double, int>>> ParseTrace(absl::string_view text);

/// "ask=0.8,upload=0.2". Errors: INVALID_ARGUMENT.
absl::StatusOr<std::vector<std::pair<RequestKind, double>>> ParseMix(absl::string_view text);

const char* KindName(RequestKind kind);

}  // namespace videonsa::client
