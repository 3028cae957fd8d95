#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/output.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

constexpr int64_t kFewBeyond = 5;

std::string Line(const Painter& painter, const char* key, const std::string& value) {
  return absl::StrCat(painter.Paint(Style::kBold, absl::StrFormat("%-11s", key)), value, "\n");
}

// Five columns at most, so that tables stay aligned.
std::string Cell(double seconds) {
  if (seconds < 0.9995e-3) return absl::StrFormat("%.0f µs", seconds * 1e6);
  if (seconds < 0.09995) return absl::StrFormat("%.1f ms", seconds * 1e3);
  if (seconds < 0.9995) return absl::StrFormat("%.0f ms", seconds * 1e3);
  if (seconds < 99.95) return absl::StrFormat("%.2f s", seconds);
  return absl::StrFormat("%.0f s", seconds);
}

std::string Right(const std::string& text, int width) {
  return absl::StrCat(std::string(std::max(1, width - DisplayWidth(text)), ' '), text);
}

std::string MetricLine(const Metric& metric) {
  const Histogram& h = metric.histogram;
  std::string line = absl::StrFormat("  %-13s%6d", metric.name, h.count());
  absl::StrAppend(&line, Right(Cell(h.mean()), 10));
  for (const auto& [name, p] : ShownPercentiles()) {
    absl::StrAppend(&line,
                    Right(absl::StrCat(Cell(h.Percentile(p)), TooFew(h, p) ? "*" : " "), 10));
  }
  return absl::StrCat(line, Right(Cell(h.max()), 10), "\n");
}

std::string MetricTable(const BenchSummary& summary, const Painter& painter) {
  std::string head = absl::StrFormat("  %-13s%6s%10s", "", "count", "mean");
  for (const auto& [name, p] : ShownPercentiles()) {
    absl::StrAppend(&head, Right(absl::StrCat(name, " "), 10));
  }
  absl::StrAppend(&head, Right("max", 10));
  std::string out = absl::StrCat(painter.Paint(Style::kBold, "latency"),
                                 "    from the scheduled start, client's clock\n",
                                 painter.Paint(Style::kDim, head), "\n");
  for (const Metric& metric : summary.metrics) {
    if (!metric.server) absl::StrAppend(&out, MetricLine(metric));
  }
  std::string phases;
  for (const Metric& metric : summary.metrics) {
    if (metric.server) absl::StrAppend(&phases, MetricLine(metric));
  }
  if (!phases.empty()) {
    absl::StrAppend(&out, painter.Paint(Style::kBold, "phases"), "     the server's clock\n",
                    phases);
  }
  return absl::StrCat(out, painter.Paint(Style::kDim, "  * fewer than 5 values beyond it\n"));
}

}  // namespace

const std::vector<std::pair<std::string, double>>& ShownPercentiles() {
  static const auto* percentiles = new std::vector<std::pair<std::string, double>>{
      {"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p99.9", 0.999}};
  return *percentiles;
}

bool TooFew(const Histogram& histogram, double percentile) {
  return static_cast<double>(histogram.count()) * (1 - percentile) <
         static_cast<double>(kFewBeyond) - 1e-9;
}

std::string BenchText(const BenchHeader& header, const BenchSummary& summary,
                      const Painter& painter) {
  std::string out;
  for (const auto& [name, value] : header) {
    absl::StrAppend(&out, Line(painter, name.c_str(), PrintableText(value)));
  }
  out += '\n';
  if (!summary.open_loop) {
    absl::StrAppend(&out, painter.Paint(Style::kYellow, "closed loop"),
                    ": users wait for their answers, so stalls hide later arrivals\n");
  }
  std::string counts =
      absl::StrCat(Grouped(summary.scheduled), " scheduled, ", Grouped(summary.sent), " sent, ",
                   Grouped(summary.ok), " answered, ", Grouped(summary.failed), " failed");
  if (summary.cancelled > 0)
    absl::StrAppend(&counts, ", ", summary.cancelled, " cancelled by plan");
  if (summary.dropped > 0) {
    absl::StrAppend(&counts, ", ", summary.dropped, " dropped (too many in flight)");
  }
  absl::StrAppend(&out, Line(painter, "requests", counts));
  const bool bad = summary.lost > 0 || summary.wrong > 0;
  absl::StrAppend(
      &out, Line(painter, "answers",
                 painter.Paint(bad ? Style::kRed : Style::kGreen,
                               absl::StrCat(summary.lost, " lost, ", summary.wrong, " wrong")) +
                     absl::StrCat(", ", Grouped(summary.checked), " checked")));
  for (const std::string& example : summary.wrong_examples) {
    absl::StrAppend(&out, "           ", PrintableText(example), "\n");
  }
  for (const auto& [error, count] : summary.errors) {
    absl::StrAppend(&out, absl::StrFormat("           %6d  %s\n", count, error));
  }
  absl::StrAppend(&out,
                  Line(painter, "rate",
                       absl::StrFormat("%.3g requests/s, %.4g tokens/s, %.4g vision tokens/s, %.4g "
                                       "frames/s over %s",
                                       summary.requests_per_s, summary.output_tokens_per_s,
                                       summary.vision_tokens_per_s, summary.frames_per_s,
                                       HumanDuration(absl::Seconds(summary.wall_s)))));
  if (summary.uploaded_bytes_per_s > 0) {
    absl::StrAppend(&out, Line(painter, "uploads",
                               absl::StrCat(HumanBytes(summary.uploaded_bytes_per_s), "/s")));
  }
  absl::StrAppend(&out, MetricTable(summary, painter));
  absl::StrAppend(
      &out, Line(painter, "goodput",
                 absl::StrFormat("%s of requests, %.3g/s within %s", Percent(summary.goodput_share),
                                 summary.goodput_per_s, SloText(summary.slo))));
  if (summary.mean_budget > 0) {
    std::string budget = absl::StrCat(Percent(summary.mean_budget), " of dense pairs");
    for (const auto& [branch, share] : summary.branch_shares) {
      if (share > 0) absl::StrAppend(&budget, ", ", branch, " ", Percent(share));
    }
    absl::StrAppend(&out, Line(painter, "attention", budget));
  }
  absl::StrAppend(&out,
                  Line(painter, "reuse",
                       absl::StrCat(Percent(summary.reuse_exact_share), " exact prefix, ",
                                    Percent(summary.reuse_features_share), " vision features")));
  if (const Histogram& first = summary.estimate_first_error; first.count() > 0) {
    const Histogram& total = summary.estimate_total_error;
    absl::StrAppend(
        &out,
        Line(painter, "estimates",
             absl::StrCat(
                 "first token off by ", Percent(first.Percentile(0.5)), " (median), ",
                 Percent(first.Percentile(0.95)), " (p95) in ", first.count(),
                 total.count() == 0
                     ? std::string()
                     : absl::StrCat("; last token off by ", Percent(total.Percentile(0.5)), ", ",
                                    Percent(total.Percentile(0.95)), " in ", total.count()))));
  }
  if (!summary.saturation.empty()) {
    absl::StrAppend(&out,
                    Line(painter, "saturated", painter.Paint(Style::kYellow, summary.saturation)));
  }
  return out;
}

}  // namespace videonsa::client
