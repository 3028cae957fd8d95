#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/bench/histogram.h"
#include "client/bench/runner.h"
#include "client/bench/sample.h"

namespace videonsa::client {

/// What a request must keep to count as good; 0: no limit.
struct Slo {
  double ttft_s = 0;
  double tpot_s = 0;  ///< mean gap between tokens
  double itl_s = 0;   ///< 95th percentile of the request's own gaps
  double e2e_s = 0;

  bool any() const { return ttft_s > 0 || tpot_s > 0 || itl_s > 0 || e2e_s > 0; }
};

/// "ttft=2s,itl=50ms,e2e=20s". Errors: INVALID_ARGUMENT.
absl::StatusOr<Slo> ParseSlo(absl::string_view text);
std::string SloText(const Slo& slo);

/// A measured quantity over all requests that have it.
struct Metric {
  std::string name;
  std::string meaning;
  bool server = false;  ///< from the server's report; else from the client's clock
  Histogram histogram;
};

/// One second of the run.
struct SecondOfRun {
  int64_t started = 0;
  int64_t ended = 0;
  int64_t failed = 0;
  int64_t tokens = 0;
  int64_t inflight = 0;  ///< at the end of the second
};

/// What a run came to. Counts and metrics leave warm-up requests out, except `lost` and `wrong`.
struct BenchSummary {
  bool open_loop = true;
  double wall_s = 0;  ///< from the first measured start to the last end
  int64_t scheduled = 0;
  int64_t dropped = 0;  ///< never sent: too many in flight
  int64_t sent = 0;
  int64_t ok = 0;
  int64_t cancelled = 0;  ///< by the plan
  int64_t failed = 0;
  int64_t lost = 0;
  int64_t checked = 0;
  int64_t wrong = 0;
  int64_t warmup = 0;
  std::map<std::string, int64_t> errors;  ///< "CODE REASON" -> count
  std::vector<std::string> wrong_examples;

  double requests_per_s = 0;
  double output_tokens_per_s = 0;
  double vision_tokens_per_s = 0;
  double frames_per_s = 0;
  double uploaded_bytes_per_s = 0;

  std::vector<Metric> metrics;
  Slo slo;
  int64_t good = 0;
  double goodput_share = 0;  ///< good of all scheduled and not cancelled by the plan
  double goodput_per_s = 0;

  double mean_budget = 0;
  std::vector<std::pair<std::string, double>> branch_shares;  ///< of dense pairs, mean
  double reuse_exact_share = 0;
  double reuse_features_share = 0;

  /// How wrong Estimate was, as |predicted - real| / real: the last estimate of an item against
  /// every later answer to it that reused nothing; vision + prefill, and until the last token for
  /// answers that used all the tokens they were allowed.
  Histogram estimate_first_error;
  Histogram estimate_total_error;

  std::vector<SecondOfRun> seconds;
  std::string saturation;  ///< a sentence if the server fell behind; else empty

  const Metric* Find(absl::string_view name) const;
};

/// Judges answers: `expected` where given, else equality among requests of the same prompt whose
/// sampling leaves nothing to chance. Partial answers (deadline, drain) and cancelled ones are not
/// judged. Sets verdict and wrong_because.
void JudgeAnswers(const std::vector<BenchItem>& items, std::vector<Sample>& samples);

/// Counts and percentiles. Latencies run from the scheduled start.
BenchSummary Summarize(const std::vector<Sample>& samples, const Slo& slo, bool open_loop);

/// Mean gap between the tokens of a request; negative if it has fewer than two.
double TimePerToken(const Sample& sample);

/// True if the request ended well within the limits. Readers that are slow by plan need only end
/// well: the limits are about the server.
bool IsGood(const Sample& sample, const Slo& slo);

}  // namespace videonsa::client
