#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/output.h"
#include "client/format.h"
#include "client/report/charts.h"
#include "client/report/html.h"

namespace videonsa::client {
namespace {

std::string Time(double seconds) { return HumanDuration(absl::Seconds(seconds)); }

std::string Tile(const std::string& value, const std::string& what, const char* css = "") {
  return absl::StrCat("<div class=\"tile\"><b class=\"", css, "\">", Escaped(value), "</b><span>",
                      Escaped(what), "</span></div>\n");
}

std::string Tiles(const BenchSummary& s) {
  std::string out = "<div class=\"tiles\">\n";
  const Metric* ttft = s.Find("ttft");
  const Metric* e2e = s.Find("e2e");
  absl::StrAppend(&out, Tile(absl::StrFormat("%.3g/s", s.requests_per_s), "requests answered"),
                  Tile(absl::StrFormat("%.3g/s", s.output_tokens_per_s), "output tokens"));
  if (ttft != nullptr) {
    absl::StrAppend(&out, Tile(Time(ttft->histogram.Percentile(0.5)), "to the first text, p50"),
                    Tile(Time(ttft->histogram.Percentile(0.99)), "to the first text, p99"));
  }
  if (e2e != nullptr) {
    absl::StrAppend(&out, Tile(Time(e2e->histogram.Percentile(0.99)), "whole answer, p99"));
  }
  absl::StrAppend(
      &out, Tile(Percent(s.goodput_share), "goodput"),
      Tile(absl::StrCat(s.lost + s.wrong), "lost or wrong", s.lost + s.wrong > 0 ? "bad" : "good"));
  return out + "</div>\n";
}

// Cumulative share over latency, thinned to what a screen can show.
ChartLine Cumulative(const Metric& metric, const std::string& name, int colour) {
  ChartLine line{.name = name, .colour = colour};
  constexpr size_t kMostPoints = 400;
  const auto buckets = metric.histogram.Buckets();
  const size_t step = buckets.size() / kMostPoints + 1;
  int64_t seen = 0;
  line.points.emplace_back(metric.histogram.min(), 0);
  for (size_t i = 0; i < buckets.size(); ++i) {
    seen += buckets[i].count;
    if (i % step == 0 || i + 1 == buckets.size()) {
      line.points.emplace_back(buckets[i].seconds,
                               100.0 * static_cast<double>(seen) / metric.histogram.count());
    }
  }
  return line;
}

std::string LatencyHtml(const BenchSummary& s) {
  std::string out;
  LineChartSpec chart{.description = "Cumulative share of requests over latency",
                      .x_label = "seconds from the scheduled start, logarithmic",
                      .y_label = "% of requests",
                      .y_max = 100,
                      .x_log = true};
  std::vector<std::pair<std::string, int>> key;
  const std::pair<const char*, const char*> shown[] = {{"ttft", "first text"},
                                                       {"e2e", "whole answer"}};
  for (const auto& [name, label] : shown) {
    if (const Metric* metric = s.Find(name)) {
      const int colour = static_cast<int>(key.size()) + 1;
      chart.lines.push_back(Cumulative(*metric, label, colour));
      key.emplace_back(label, colour);
    }
  }
  if (!key.empty()) absl::StrAppend(&out, ChartKey(key), LineChart(chart));
  std::vector<std::string> head = {"", "Count", "Mean"};
  for (const auto& [name, p] : ShownPercentiles()) head.push_back(name);
  head.push_back("Max");
  std::vector<std::vector<std::string>> rows;
  for (const Metric& metric : s.metrics) {
    const Histogram& h = metric.histogram;
    std::vector<std::string> row = {
        absl::StrCat(metric.name, metric.server ? " (server): " : ": ", metric.meaning),
        Grouped(h.count()), Time(h.mean())};
    for (const auto& [name, p] : ShownPercentiles()) {
      row.push_back(absl::StrCat(Time(h.Percentile(p)), TooFew(h, p) ? "*" : ""));
    }
    row.push_back(Time(h.max()));
    rows.push_back(row);
  }
  return absl::StrCat(out, DataTable(head, rows),
                      "<p class=\"soft\">* fewer than 5 values beyond it.</p>\n");
}

// Columns between the 0.5th and the 99.5th percentile, the rest in the first and the last one;
// equal steps, or equal ratios if that spans more than a factor of 20.
class Scale {
 public:
  explicit Scale(const Histogram& h)
      : low_(std::max(h.Percentile(0.005), 1e-6)),
        high_(std::max(h.Percentile(0.995), low_ * 1.001)),
        log_(high_ / low_ > 20) {}

  double ToColumn(double seconds) const {
    const double x = std::max(seconds, low_);
    return kColumns *
           (log_ ? std::log(x / low_) / std::log(high_ / low_) : (x - low_) / (high_ - low_));
  }
  double FromColumn(double column) const {
    return log_ ? low_ * std::pow(high_ / low_, column / kColumns)
                : low_ + (high_ - low_) * column / kColumns;
  }

  static constexpr int kColumns = 48;

 private:
  double low_, high_;
  bool log_;
};

std::string HistogramHtml(const Metric& metric, int colour) {
  const Histogram& h = metric.histogram;
  const Scale scale(h);
  ColumnChartSpec chart{.description = absl::StrCat("Histogram of ", metric.meaning),
                        .values = std::vector<double>(Scale::kColumns, 0.0),
                        .colour = colour,
                        .height = 110};
  for (const Histogram::Bucket& bucket : h.Buckets()) {
    const int at = static_cast<int>(scale.ToColumn(bucket.seconds));
    chart.values[std::clamp(at, 0, Scale::kColumns - 1)] += static_cast<double>(bucket.count);
  }
  for (int i = 0; i < Scale::kColumns; ++i) {
    chart.tips.push_back(absl::StrCat(Time(scale.FromColumn(i)), " – ",
                                      Time(scale.FromColumn(i + 1)), ": ",
                                      Grouped(static_cast<int64_t>(chart.values[i]))));
    if (i % 6 == 0) chart.ticks.emplace_back(i, Time(scale.FromColumn(i)));
  }
  // Markers that would stand on each other are left out.
  double last = -10;
  for (const double p : {0.5, 0.95, 0.99}) {
    const double at = std::min<double>(scale.ToColumn(h.Percentile(p)), Scale::kColumns);
    if (at - last < 2.5) continue;
    chart.markers.emplace_back(at, absl::StrFormat("p%.0f", p * 100));
    last = at;
  }
  const double most = *std::max_element(chart.values.begin(), chart.values.end());
  chart.y_label = absl::StrCat("full height: ", Grouped(static_cast<int64_t>(most)));
  return absl::StrCat("<h3>", Escaped(metric.name), ": ", Escaped(metric.meaning), "</h3>\n",
                      ColumnChart(chart));
}

std::string PhasesHtml(const BenchSummary& s) {
  std::vector<ChartBar> bars;
  int colour = 0;
  for (const Metric& metric : s.metrics) {
    const bool total = metric.name == "server_ttft" || metric.name == "server_total";
    if (!metric.server || total) continue;
    const Histogram& h = metric.histogram;
    bars.push_back({.name = metric.name,
                    .value = h.mean(),
                    .text = absl::StrCat(Time(h.mean()), ", p99 ", Time(h.Percentile(0.99))),
                    .colour = ++colour % 8 + 1});
  }
  return absl::StrCat("<p class=\"soft\">Mean of each phase by the server's clock.</p>\n",
                      RowChart("Mean time of each phase", bars));
}

std::string SecondsHtml(const BenchSummary& s) {
  LineChartSpec requests{.description = "Requests started, ended and in flight by second",
                         .x_label = "second of the run",
                         .y_label = "requests",
                         .height = 160};
  requests.lines = {{"started", {}, 1}, {"ended", {}, 3}, {"in flight", {}, 2}};
  LineChartSpec tokens{.description = "Output tokens by second",
                       .x_label = "second of the run",
                       .y_label = "tokens a second",
                       .height = 120};
  tokens.lines = {{"tokens", {}, 4}};
  for (size_t i = 0; i < s.seconds.size(); ++i) {
    const double at = static_cast<double>(i);
    requests.lines[0].points.emplace_back(at, s.seconds[i].started);
    requests.lines[1].points.emplace_back(at, s.seconds[i].ended);
    requests.lines[2].points.emplace_back(at, s.seconds[i].inflight);
    tokens.lines[0].points.emplace_back(at, s.seconds[i].tokens);
  }
  return absl::StrCat(ChartKey({{"started", 1}, {"ended", 3}, {"in flight", 2}}),
                      LineChart(requests), LineChart(tokens));
}

std::string CountsHtml(const BenchSummary& s) {
  std::vector<std::vector<std::string>> rows = {
      {"scheduled", Grouped(s.scheduled)}, {"dropped before sending", Grouped(s.dropped)},
      {"sent", Grouped(s.sent)},           {"answered", Grouped(s.ok)},
      {"failed", Grouped(s.failed)},       {"cancelled by the plan", Grouped(s.cancelled)},
      {"lost", Grouped(s.lost)},           {"checked answers", Grouped(s.checked)},
      {"wrong answers", Grouped(s.wrong)}, {"warm-up, not measured", Grouped(s.warmup)}};
  for (const auto& [error, count] : s.errors) rows.push_back({error, Grouped(count)});
  std::string out = DataTable({"Requests", "Count"}, rows);
  for (const std::string& example : s.wrong_examples) {
    absl::StrAppend(&out, "<p class=\"bad\">", Escaped(example), "</p>\n");
  }
  return out;
}

std::string AttentionHtml(const BenchSummary& s) {
  std::vector<ChartBar> bars;
  int colour = 0;
  for (const auto& [branch, share] : s.branch_shares) {
    ++colour;
    if (share > 0) bars.push_back({branch, share, Percent(share), colour});
  }
  return absl::StrCat(
      "<p>", Escaped(Percent(s.mean_budget)),
      " of the dense pairs on average. Reused: ", Escaped(Percent(s.reuse_exact_share)),
      " of answers by exact prefix, ", Escaped(Percent(s.reuse_features_share)),
      " by vision features.</p>\n", RowChart("Mean share of the dense pairs by branch", bars));
}

}  // namespace

std::string BenchHtml(const BenchHeader& header, const BenchSummary& s) {
  std::string body = absl::StrCat("<h1>Load on a VideoNSA server</h1>\n", Tiles(s));
  if (!s.open_loop) {
    body +=
        "<p class=\"soft\">Closed loop: users wait for their answers, so a stall hides the "
        "requests that would have come meanwhile.</p>\n";
  }
  if (!s.saturation.empty()) {
    absl::StrAppend(&body, "<p class=\"bad\">", Escaped(s.saturation), ".</p>\n");
  }
  absl::StrAppend(&body, Section("latency", "Latency", LatencyHtml(s)));
  std::string histograms;
  int colour = 0;
  for (const char* name : {"ttft", "e2e", "itl"}) {
    ++colour;
    if (const Metric* metric = s.Find(name)) {
      absl::StrAppend(&histograms, HistogramHtml(*metric, colour));
    }
  }
  if (!histograms.empty()) {
    absl::StrAppend(&body, Section("histograms", "Histograms", histograms),
                    Section("phases", "Phases", PhasesHtml(s)));
  }
  absl::StrAppend(&body, Section("seconds", "The run by second", SecondsHtml(s)),
                  Section("counts", "Requests", CountsHtml(s)));
  if (!s.branch_shares.empty()) {
    absl::StrAppend(&body, Section("attention", "Attention budget", AttentionHtml(s)));
  }
  const std::string goodput =
      absl::StrFormat("%s of requests, %.3g/s", Percent(s.goodput_share), s.goodput_per_s);
  BenchHeader facts = header;
  facts.emplace_back("limits", SloText(s.slo));
  facts.emplace_back("goodput", goodput);
  absl::StrAppend(&body, Section("run", "The run", FactsTable(facts)),
                  "<footer>Written by videonsa bench. This page needs no network.</footer>\n");
  return HtmlPage("Load on a VideoNSA server", body);
}

}  // namespace videonsa::client
