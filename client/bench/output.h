#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "client/bench/sample.h"
#include "client/bench/summary.h"
#include "client/style.h"

namespace videonsa::client {

/// What was run against what; (name, value) in order.
using BenchHeader = std::vector<std::pair<std::string, std::string>>;

/// The summary for a terminal, at most 100 columns.
std::string BenchText(const BenchHeader& header, const BenchSummary& summary,
                      const Painter& painter);

/// Schema "videonsa.bench/1": header, counts, rates, metrics, goodput, and the values of every
/// request as columns, so that runs can be compared.
std::string BenchJson(const BenchHeader& header, const BenchSummary& summary,
                      const std::vector<Sample>& samples);

/// One line a request.
std::string BenchCsv(const std::vector<Sample>& samples);

/// One self-contained page with plots.
std::string BenchHtml(const BenchHeader& header, const BenchSummary& summary);

/// The percentiles that are printed, with their names.
const std::vector<std::pair<std::string, double>>& ShownPercentiles();

/// True if fewer than five values lie beyond the percentile: one odd request decides it.
bool TooFew(const Histogram& histogram, double percentile);

/// What `bench compare` found.
struct Comparison {
  std::string text;
  bool regressed = false;
};

/// Compares two results of BenchJson by bootstrap over requests: for each metric's mean, p50, p95
/// and p99 the change and its 95 % interval. Worse by more than `threshold` (0.05 = 5 %) with the
/// whole interval is a regression, as are requests newly lost, wrong or failed.
/// Errors: INVALID_ARGUMENT if a text is no result of this schema.
absl::StatusOr<Comparison> CompareRuns(const std::string& a_json, const std::string& b_json,
                                       double threshold, uint64_t seed);

}  // namespace videonsa::client
