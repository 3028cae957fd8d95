#include "client/bench/summary.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

constexpr size_t kWrongExamples = 5;

double SecondsOf(const google::protobuf::Duration& duration) {
  return absl::ToDoubleSeconds(FromProto(duration));
}

class Metrics {
 public:
  Metrics() {
    Add("ttft", "scheduled start to first text", false);
    Add("itl", "gap between tokens", false);
    Add("tpot", "mean gap between tokens, one a request", false);
    Add("e2e", "scheduled start to end of stream", false);
    Add("send_delay", "scheduled start to sending", false);
    Add("queue", "waiting for admission and a slot", true);
    Add("fetch", "downloading from a URL", true);
    Add("decode", "demux, decode, sample", true);
    Add("preprocess", "resize, normalise, patchify", true);
    Add("vision", "vision tower", true);
    Add("prefill", "language-model prefill", true);
    Add("generate", "first to last token", true);
    Add("server_ttft", "receive to first token", true);
    Add("server_total", "receive to last byte", true);
    Add("outside", "client's time minus the server's", false);
    Add("slow_reader", "whole answer of readers that are slow by plan", false);
    Add("upload", "whole upload", false);
    Add("estimate", "whole estimate call", false);
  }

  void Record(absl::string_view name, double seconds) {
    for (Metric& metric : metrics_) {
      if (metric.name == name) metric.histogram.Record(seconds);
    }
  }

  // What a slow reader's clock shows is its own doing; it is kept apart.
  void RecordAsk(const Sample& sample) {
    const bool slow = sample.plan.slow_reader;
    Record(slow ? "slow_reader" : "e2e", sample.end_s - sample.scheduled_s);
    if (!slow) {
      if (sample.first_text_s >= 0) Record("ttft", sample.first_text_s - sample.scheduled_s);
      for (const float gap : sample.gaps_s) Record("itl", gap);
      if (TimePerToken(sample) >= 0) Record("tpot", TimePerToken(sample));
    }
    const proto::Timing& timing = sample.result.timing();
    if (!sample.result.has_timing()) return;
    RecordPhase("queue", timing.has_queue(), timing.queue());
    RecordPhase("fetch", timing.has_fetch(), timing.fetch());
    RecordPhase("decode", timing.has_decode(), timing.decode());
    RecordPhase("preprocess", timing.has_preprocess(), timing.preprocess());
    RecordPhase("vision", timing.has_vision_encode(), timing.vision_encode());
    RecordPhase("prefill", timing.has_prefill(), timing.prefill());
    RecordPhase("generate", timing.has_generate(), timing.generate());
    RecordPhase("server_ttft", timing.has_time_to_first_token(), timing.time_to_first_token());
    RecordPhase("server_total", timing.has_total(), timing.total());
    if (timing.has_total() && !slow) {
      Record("outside", std::max(0.0, sample.end_s - sample.sent_s - SecondsOf(timing.total())));
    }
  }

  std::vector<Metric> TakeUsed() {
    std::erase_if(metrics_, [](const Metric& metric) { return metric.histogram.count() == 0; });
    return std::move(metrics_);
  }

 private:
  void Add(const char* name, const char* meaning, bool server) {
    metrics_.push_back({name, meaning, server, {}});
  }
  void RecordPhase(const char* name, bool set, const google::protobuf::Duration& time) {
    if (set) Record(name, SecondsOf(time));
  }

  std::vector<Metric> metrics_;
};

// Mean budget and reuse over answers that report them.
void SummarizeAttention(const std::vector<const Sample*>& answered, BenchSummary& out) {
  double budget = 0, compressed = 0, selected = 0, window = 0, dense = 0;
  int64_t count = 0, exact = 0, features = 0;
  for (const Sample* sample : answered) {
    if (sample->result.kv_reuse() == proto::KV_REUSE_EXACT) ++exact;
    if (sample->result.kv_reuse() == proto::KV_REUSE_FEATURES) ++features;
    const proto::AttentionReport& report = sample->result.attention();
    if (report.dense_pairs() <= 0) continue;
    const double pairs = static_cast<double>(report.dense_pairs());
    ++count;
    budget += report.budget_fraction();
    compressed += static_cast<double>(report.used().compressed()) / pairs;
    selected += static_cast<double>(report.used().selected()) / pairs;
    window += static_cast<double>(report.used().window()) / pairs;
    dense += static_cast<double>(report.used().dense()) / pairs;
  }
  if (!answered.empty()) {
    out.reuse_exact_share = static_cast<double>(exact) / static_cast<double>(answered.size());
    out.reuse_features_share = static_cast<double>(features) / static_cast<double>(answered.size());
  }
  if (count == 0) return;
  const double n = static_cast<double>(count);
  out.mean_budget = budget / n;
  out.branch_shares = {{"compressed", compressed / n},
                       {"selected", selected / n},
                       {"window", window / n},
                       {"dense", dense / n}};
}

// What the server itself needed for the answer, without queue and media: what Estimate predicts.
void SummarizeEstimates(const std::vector<Sample>& samples, BenchSummary& out) {
  std::vector<const Sample*> by_end;
  for (const Sample& sample : samples) {
    if (sample.ok()) by_end.push_back(&sample);
  }
  const auto time_of = [](const Sample* sample) {
    return sample->plan.kind == RequestKind::kEstimate ? sample->end_s : sample->sent_s;
  };
  std::stable_sort(by_end.begin(), by_end.end(),
                   [&](const Sample* a, const Sample* b) { return time_of(a) < time_of(b); });
  std::map<int, const Sample*> estimates;  // the last one, by item
  for (const Sample* sample : by_end) {
    if (sample->plan.kind == RequestKind::kEstimate) {
      if (sample->estimate_first_s > 0) estimates[sample->plan.item] = sample;
      continue;
    }
    const auto found = estimates.find(sample->plan.item);
    const proto::Timing& timing = sample->result.timing();
    const bool fresh = sample->result.kv_reuse() != proto::KV_REUSE_EXACT &&
                       sample->result.kv_reuse() != proto::KV_REUSE_FEATURES;
    if (found == estimates.end() || !fresh || sample->plan.kind != RequestKind::kAsk) continue;
    const double first = SecondsOf(timing.vision_encode()) + SecondsOf(timing.prefill());
    const double total = first + SecondsOf(timing.generate());
    if (first <= 0) continue;
    const Sample& estimate = *found->second;
    out.estimate_first_error.Record(std::abs(estimate.estimate_first_s - first) / first);
    if (sample->result.finish_reason() != proto::AskResult::FINISH_REASON_LENGTH) continue;
    out.estimate_total_error.Record(std::abs(estimate.estimate_total_s - total) / total);
  }
}

void SummarizeSeconds(const std::vector<Sample>& samples, BenchSummary& out) {
  double last = 0;
  for (const Sample& sample : samples) last = std::max(last, sample.end_s);
  out.seconds.resize(static_cast<size_t>(last) + 1);
  for (const Sample& sample : samples) {
    if (!sample.sent()) continue;
    const size_t started =
        std::min(static_cast<size_t>(std::max(sample.sent_s, 0.0)), out.seconds.size() - 1);
    const size_t ended = sample.end_s < 0 ? out.seconds.size() : static_cast<size_t>(sample.end_s);
    ++out.seconds[started].started;
    for (size_t s = started; s < std::min(ended, out.seconds.size()); ++s)
      ++out.seconds[s].inflight;
    if (ended >= out.seconds.size()) continue;
    ++out.seconds[ended].ended;
    if (!sample.ok() && !sample.cancelled_by_us) ++out.seconds[ended].failed;
    // Tokens are spread evenly from the first to the last text.
    const double begin = std::max(sample.first_text_s, 0.0);
    const double length = std::max(sample.last_text_s - begin, 1e-9);
    for (int64_t t = 0; t < sample.tokens; ++t) {
      const double at =
          begin + length * static_cast<double>(t) / static_cast<double>(sample.tokens);
      ++out.seconds[std::min(static_cast<size_t>(at), out.seconds.size() - 1)].tokens;
    }
  }
}

// Open loop: latencies that grow through the run mean that the rate is more than can be served.
std::string SaturationNote(const std::vector<const Sample*>& answered) {
  constexpr size_t kLeast = 30;
  if (answered.size() < kLeast) return "";
  const size_t third = answered.size() / 3;
  double first = 0, last = 0;
  for (size_t i = 0; i < third; ++i) {
    first += answered[i]->end_s - answered[i]->scheduled_s;
    const Sample& late = *answered[answered.size() - 1 - i];
    last += late.end_s - late.scheduled_s;
  }
  first /= static_cast<double>(third);
  last /= static_cast<double>(third);
  if (last < 1.5 * first || last - first < 0.1) return "";
  return absl::StrFormat(
      "latency grew from %s (first third) to %s (last third): the rate is above what the server "
      "sustains, percentiles depend on the length of the run",
      HumanDuration(absl::Seconds(first)), HumanDuration(absl::Seconds(last)));
}

void CountEnd(const Sample& sample, BenchSummary& out) {
  if (sample.lost()) return;
  if (sample.ok()) {
    ++out.ok;
  } else if (sample.cancelled_by_us) {
    ++out.cancelled;
  } else {
    ++out.failed;
    ++out.errors[sample.reason.empty() ? sample.code
                                       : absl::StrCat(sample.code, " ", sample.reason)];
  }
}

void SummarizeRates(double tokens, double vision, double frames, double bytes, BenchSummary& out) {
  if (out.wall_s <= 0) return;
  out.requests_per_s = static_cast<double>(out.ok) / out.wall_s;
  out.output_tokens_per_s = tokens / out.wall_s;
  out.vision_tokens_per_s = vision / out.wall_s;
  out.frames_per_s = frames / out.wall_s;
  out.uploaded_bytes_per_s = bytes / out.wall_s;
  out.goodput_per_s = static_cast<double>(out.good) / out.wall_s;
}

}  // namespace

const Metric* BenchSummary::Find(absl::string_view name) const {
  for (const Metric& metric : metrics) {
    if (metric.name == name) return &metric;
  }
  return nullptr;
}

absl::StatusOr<Slo> ParseSlo(absl::string_view text) {
  Slo slo;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(part, absl::MaxSplits('=', 1));
    const auto time = ParseClipTime(pair.second);
    double* target = pair.first == "ttft"   ? &slo.ttft_s
                     : pair.first == "tpot" ? &slo.tpot_s
                     : pair.first == "itl"  ? &slo.itl_s
                     : pair.first == "e2e"  ? &slo.e2e_s
                                            : nullptr;
    if (target == nullptr || !time.ok() || *time <= absl::ZeroDuration()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--slo: \"", part, "\" is no limit; write ttft=2s,itl=50ms,tpot=40ms,e2e=20s"));
    }
    *target = absl::ToDoubleSeconds(*time);
  }
  return slo;
}

std::string SloText(const Slo& slo) {
  std::vector<std::string> parts;
  const std::pair<const char*, double> limits[] = {
      {"ttft", slo.ttft_s}, {"tpot", slo.tpot_s}, {"itl", slo.itl_s}, {"e2e", slo.e2e_s}};
  for (const auto& [name, seconds] : limits) {
    if (seconds > 0) {
      parts.push_back(absl::StrCat(name, " ≤ ", HumanDuration(absl::Seconds(seconds))));
    }
  }
  return parts.empty() ? "none" : absl::StrJoin(parts, ", ");
}

double TimePerToken(const Sample& sample) {
  if (sample.gaps_s.empty()) return -1;
  return (sample.last_text_s - sample.first_text_s) / static_cast<double>(sample.gaps_s.size());
}

bool IsGood(const Sample& sample, const Slo& slo) {
  if (!sample.ok() || sample.verdict == Verdict::kWrong) return false;
  if (sample.plan.slow_reader) return true;
  if (slo.e2e_s > 0 && sample.end_s - sample.scheduled_s > slo.e2e_s) return false;
  if (sample.plan.kind != RequestKind::kAsk) return true;
  if (slo.ttft_s > 0 &&
      (sample.first_text_s < 0 || sample.first_text_s - sample.scheduled_s > slo.ttft_s)) {
    return false;
  }
  if (slo.tpot_s > 0 && TimePerToken(sample) > slo.tpot_s) return false;
  if (slo.itl_s > 0 && !sample.gaps_s.empty()) {
    std::vector<float> gaps = sample.gaps_s;
    const size_t at = (gaps.size() * 95 + 99) / 100 - 1;
    std::nth_element(gaps.begin(), gaps.begin() + static_cast<int64_t>(at), gaps.end());
    if (gaps[at] > slo.itl_s) return false;
  }
  return true;
}

void JudgeAnswers(const std::vector<BenchItem>& items, std::vector<Sample>& samples) {
  std::map<int, const Sample*> first_of;
  for (Sample& sample : samples) {
    const bool whole = sample.ok() && sample.plan.kind == RequestKind::kAsk &&
                       sample.result.finish_reason() != proto::AskResult::FINISH_REASON_DEADLINE &&
                       sample.result.finish_reason() != proto::AskResult::FINISH_REASON_DRAIN;
    if (!whole) continue;
    const BenchItem& item = items[sample.plan.item];
    const proto::GenerationConfig& generation = item.question.generation();
    const proto::GenerationConfig& used = sample.result.effective_generation();
    const bool greedy = generation.has_temperature()
                            ? generation.temperature() == 0
                            : !sample.result.has_effective_generation() || used.temperature() == 0;
    std::string expected;
    bool right = true;
    if (!item.expected.empty()) {
      expected = item.expected;
      const absl::string_view answer = absl::StripAsciiWhitespace(sample.answer);
      right = item.expect_prefix ? absl::StartsWith(answer, expected) : answer == expected;
    } else if (!sample.own_prompt && (greedy || generation.has_seed())) {
      const Sample*& first = first_of[sample.plan.item];
      if (first == nullptr) first = &sample;
      expected = first->answer;
      right = sample.answer == expected;
    } else {
      continue;
    }
    sample.verdict = right ? Verdict::kRight : Verdict::kWrong;
    if (!right) {
      sample.wrong_because = absl::StrCat("request ", sample.plan.index, ", ", item.name, ": \"",
                                          Ellipsize(sample.answer, 60), "\" instead of \"",
                                          Ellipsize(expected, 60), "\"");
    }
  }
}

BenchSummary Summarize(const std::vector<Sample>& samples, const Slo& slo, bool open_loop) {
  BenchSummary out;
  out.open_loop = open_loop;
  out.slo = slo;
  Metrics metrics;
  std::vector<const Sample*> answered;
  double begin = INFINITY, end = 0, tokens = 0, vision = 0, frames = 0, bytes = 0;
  for (const Sample& sample : samples) {
    if (sample.lost()) ++out.lost;
    if (sample.verdict != Verdict::kUnchecked) ++out.checked;
    if (sample.verdict == Verdict::kWrong) {
      ++out.wrong;
      if (out.wrong_examples.size() < kWrongExamples) {
        out.wrong_examples.push_back(sample.wrong_because);
      }
    }
    if (sample.plan.warmup) {
      ++out.warmup;
      continue;
    }
    // A closed loop that was stopped in time leaves requests that nobody scheduled.
    if (!sample.sent() && !sample.dropped) continue;
    ++out.scheduled;
    if (sample.dropped) {
      ++out.dropped;
      continue;
    }
    ++out.sent;
    begin = std::min(begin, sample.scheduled_s);
    if (!sample.plan.slow_reader) end = std::max(end, sample.end_s);
    CountEnd(sample, out);
    metrics.Record("send_delay", std::max(0.0, sample.sent_s - sample.scheduled_s));
    if (!sample.ok()) continue;
    tokens += static_cast<double>(sample.tokens);
    vision += static_cast<double>(sample.result.usage().prompt().vision());
    frames += static_cast<double>(sample.result.usage().frames_used());
    bytes += static_cast<double>(sample.uploaded_bytes);
    if (IsGood(sample, slo)) ++out.good;
    if (sample.plan.kind == RequestKind::kAsk) {
      metrics.RecordAsk(sample);
      if (!sample.plan.slow_reader) answered.push_back(&sample);
    } else {
      metrics.Record(KindName(sample.plan.kind), sample.end_s - sample.scheduled_s);
    }
  }
  out.wall_s = end > begin ? end - begin : 0;
  out.metrics = metrics.TakeUsed();
  SummarizeRates(tokens, vision, frames, bytes, out);
  const int64_t wanted = out.scheduled - out.cancelled;
  out.goodput_share = wanted > 0 ? static_cast<double>(out.good) / static_cast<double>(wanted) : 0;
  SummarizeAttention(answered, out);
  SummarizeEstimates(samples, out);
  SummarizeSeconds(samples, out);
  if (open_loop) out.saturation = SaturationNote(answered);
  return out;
}

}  // namespace videonsa::client
