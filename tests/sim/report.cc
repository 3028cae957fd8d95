#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/sim/cluster.h"

namespace videonsa::sim {
namespace {

const char* ClassName(int priority) {
  static constexpr const char* kNames[] = {"batch", "standard", "interactive"};
  return kNames[priority];
}

double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string Line(const SimResult& r) {
  std::string out = absl::StrFormat(
      "%s, %s: good %.3g/s (%.1f %% of requests), workers busy %.0f %%, pages held %.0f %% "
      "(peak %.0f %%), preemptions %d, tenants' fairness %.3f, prompt tokens reused %.0f %%, cost "
      "model off by %.1f %%\n",
      r.trace, r.policy, r.good_per_second,
      100 * Share(r.total(&ClassResult::good), r.total(&ClassResult::requests)), 100 * r.busy,
      100 * r.pages_mean, 100 * r.pages_peak, r.preemptions, r.tenant_fairness,
      100 * Share(r.reused_tokens, r.prompt_tokens), 100 * r.cost_error);
  absl::StrAppend(&out, absl::StrFormat("  %-12s %7s %7s %7s  %8s %8s %8s  %8s %8s  %9s\n", "class",
                                        "asked", "good %", "gave up", "ttft p50", "p95", "p99",
                                        "gap p50", "p99", "longest"));
  for (int i = 2; i >= 0; --i) {
    const ClassResult& c = r.by_priority[i];
    absl::StrAppend(
        &out,
        absl::StrFormat("  %-12s %7d %7.1f %7d  %8.2f %8.2f %8.2f  %8.4f %8.4f  %9.1f\n",
                        ClassName(i), c.requests, 100 * Share(c.good, c.requests), c.gave_up,
                        c.ttft.Percentile(0.5), c.ttft.Percentile(0.95), c.ttft.Percentile(0.99),
                        c.gap.Percentile(0.5), c.gap.Percentile(0.99), c.longest_wait));
  }
  absl::StrAppend(
      &out,
      absl::StrFormat("  %.0f s simulated in %.1f s: %d steps, %.1f M tokens, %.2f us a token\n",
                      r.seconds, r.real_seconds, r.steps, static_cast<double>(r.tokens) / 1e6,
                      1e6 * r.real_seconds / static_cast<double>(r.tokens)));
  return out;
}

}  // namespace

std::string ResultsText(const std::vector<SimResult>& results) {
  std::string out;
  for (const SimResult& result : results) absl::StrAppend(&out, Line(result), "\n");
  absl::StrAppend(&out,
                  absl::StrFormat("%-8s %14s %14s %14s %16s %16s\n", "trace", "first-come",
                                  "token-budget", "ours", "to first-come", "to token-budget"));
  for (size_t i = 0; i + 2 < results.size(); i += 3) {
    const double first = results[i].good_per_second, tokens = results[i + 1].good_per_second,
                 ours = results[i + 2].good_per_second;
    absl::StrAppend(
        &out, absl::StrFormat("%-8s %12.3g/s %12.3g/s %12.3g/s %15.2fx %15.2fx\n", results[i].trace,
                              first, tokens, ours, first > 0 ? ours / first : 0,
                              tokens > 0 ? ours / tokens : 0));
  }
  return out;
}

std::string ResultsJson(const std::vector<SimResult>& results) {
  std::string out = "{\"schema\": \"videonsa.sim/1\", \"results\": [";
  const char* separator = "\n";
  for (const SimResult& r : results) {
    absl::StrAppend(
        &out, separator,
        absl::StrFormat("{\"trace\": \"%s\", \"policy\": \"%s\", \"good_per_s\": %.6g, "
                        "\"busy\": %.6g, \"pages_mean\": %.6g, \"pages_peak\": %.6g, "
                        "\"preemptions\": %d, \"tenant_fairness\": %.6g, \"reused_tokens\": %d, "
                        "\"prompt_tokens\": %d, \"output_tokens\": %d, \"steps\": %d, "
                        "\"cost_error\": %.6g, \"simulated_s\": %.6g, \"real_s\": %.6g, "
                        "\"classes\": {",
                        r.trace, r.policy, r.good_per_second, r.busy, r.pages_mean, r.pages_peak,
                        r.preemptions, r.tenant_fairness, r.reused_tokens, r.prompt_tokens,
                        r.tokens, r.steps, r.cost_error, r.seconds, r.real_seconds));
    separator = ",\n";
    const char* comma = "";
    for (int i = 2; i >= 0; --i) {
      const ClassResult& c = r.by_priority[i];
      absl::StrAppend(
          &out, comma,
          absl::StrFormat("\"%s\": {\"requests\": %d, \"answered\": %d, \"good\": %d, "
                          "\"gave_up\": %d, \"ttft_p50\": %.6g, \"ttft_p95\": %.6g, "
                          "\"ttft_p99\": %.6g, \"gap_p50\": %.6g, \"gap_p99\": %.6g, "
                          "\"longest_wait\": %.6g}",
                          ClassName(i), c.requests, c.answered, c.good, c.gave_up,
                          c.ttft.Percentile(0.5), c.ttft.Percentile(0.95), c.ttft.Percentile(0.99),
                          c.gap.Percentile(0.5), c.gap.Percentile(0.99), c.longest_wait));
      comma = ", ";
    }
    absl::StrAppend(&out, "}}");
  }
  absl::StrAppend(&out, "\n]}\n");
  return out;
}

}  // namespace videonsa::sim
