#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/output.h"
#include "client/format.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

using google::protobuf::Value;

constexpr int kResamples = 1000;

struct Statistic {
  const char* name;
  double percentile;  // negative: the mean
};
constexpr Statistic kStatistics[] = {{"mean", -1}, {"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}};

double Of(std::vector<double>& values, const Statistic& statistic) {
  if (statistic.percentile < 0) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  }
  const size_t at = static_cast<size_t>(std::max(
      0.0, std::ceil(statistic.percentile * static_cast<double>(values.size()) - 1e-9) - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(at), values.end());
  return values[at];
}

std::vector<double> Column(const Value& run, const std::string& name) {
  std::vector<double> values;
  const Value* columns = Member(run, "requests_s");
  const Value* column = columns == nullptr ? nullptr : Member(*columns, name);
  if (column == nullptr) return values;
  for (const Value& value : column->list_value().values()) {
    if (value.number_value() >= 0) values.push_back(value.number_value());
  }
  return values;
}

std::vector<double> Resample(const std::vector<double>& values, std::mt19937_64& random) {
  std::vector<double> sample(values.size());
  for (double& value : sample) value = values[random() % values.size()];
  return sample;
}

struct Change {
  double a, b, low, high;  // low and high: relative change, 95 % interval
};

Change Compare(const std::vector<double>& a, const std::vector<double>& b,
               const Statistic& statistic, std::mt19937_64& random) {
  std::vector<double> whole_a = a, whole_b = b, changes;
  Change change{Of(whole_a, statistic), Of(whole_b, statistic), 0, 0};
  for (int i = 0; i < kResamples; ++i) {
    std::vector<double> one = Resample(a, random), other = Resample(b, random);
    const double base = Of(one, statistic);
    changes.push_back(base > 0 ? Of(other, statistic) / base - 1 : 0);
  }
  std::sort(changes.begin(), changes.end());
  change.low = changes[kResamples / 40];
  change.high = changes[kResamples - 1 - kResamples / 40];
  return change;
}

std::string CountLine(const Value& a, const Value& b, const std::string& name, bool& regressed) {
  const std::string path = absl::StrCat("counts.", name);
  const double before = NumberAt(a, path, 0), after = NumberAt(b, path, 0);
  const bool worse = after > before;
  regressed |= worse;
  if (before == 0 && after == 0) return "";
  return absl::StrFormat("%-16s %10.0f %10.0f  %s\n", name, before, after, worse ? "worse" : "");
}

}  // namespace

absl::StatusOr<Comparison> CompareRuns(const std::string& a_json, const std::string& b_json,
                                       double threshold, uint64_t seed) {
  Value runs[2];
  const std::string* texts[2] = {&a_json, &b_json};
  for (int i = 0; i < 2; ++i) {
    auto parsed = ParseJson(*texts[i]);
    if (!parsed.ok()) return parsed.status();
    if (StringAt(*parsed, "schema", "") != "videonsa.bench/1") {
      return absl::InvalidArgumentError(
          absl::StrCat("the ", i == 0 ? "first" : "second",
                       " file is no result of videonsa bench --json (schema videonsa.bench/1)"));
    }
    runs[i] = *std::move(parsed);
  }
  std::mt19937_64 random(seed);
  Comparison out;
  out.text = absl::StrFormat("%-16s %10s %10s  %s\n", "", "before", "after",
                             "change, 95 % interval by bootstrap over requests");
  for (const char* metric : {"ttft", "tpot", "e2e", "queue", "decode", "vision", "prefill"}) {
    const std::vector<double> a = Column(runs[0], metric), b = Column(runs[1], metric);
    if (a.empty() || b.empty()) continue;
    for (const Statistic& statistic : kStatistics) {
      const Change change = Compare(a, b, statistic, random);
      const bool worse = change.low > threshold;
      const bool better = change.high < -threshold;
      out.regressed |= worse;
      absl::StrAppend(&out.text,
                      absl::StrFormat("%-16s %10s %10s  %+6.1f %%  [%+.1f, %+.1f] %s\n",
                                      absl::StrCat(metric, " ", statistic.name),
                                      HumanDuration(absl::Seconds(change.a)),
                                      HumanDuration(absl::Seconds(change.b)),
                                      change.a > 0 ? 100 * (change.b / change.a - 1) : 0.0,
                                      100 * change.low, 100 * change.high,
                                      worse    ? "worse"
                                      : better ? "better"
                                               : ""));
    }
  }
  for (const char* count : {"failed", "lost", "wrong", "dropped"}) {
    absl::StrAppend(&out.text, CountLine(runs[0], runs[1], count, out.regressed));
  }
  absl::StrAppend(&out.text, out.regressed ? "regressed" : "no regression", " (threshold ",
                  Percent(threshold), ")\n");
  return out;
}

}  // namespace videonsa::client
