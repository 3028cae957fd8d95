#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/bench/histogram.h"
#include "client/bench/output.h"
#include "client/bench/plan.h"
#include "client/bench/runner.h"
#include "client/bench/summary.h"
#include "client/format.h"
#include "client/json.h"
#include "tests/client/fake_server.h"

namespace videonsa::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Histogram, PercentilesToThreeDigits) {
  std::mt19937_64 random(5);
  std::lognormal_distribution<double> draw(-2, 2);
  std::vector<double> values(20'001);
  Histogram histogram;
  for (double& value : values) histogram.Record(value = draw(random));
  std::sort(values.begin(), values.end());
  for (const double p : {0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const size_t rank = std::max<size_t>(1, static_cast<size_t>(std::ceil(p * values.size())));
    const double exact = values[rank - 1];
    EXPECT_NEAR(histogram.Percentile(p), exact, exact * 1e-3 + 1e-6) << p;
  }
  EXPECT_NEAR(histogram.max(), values.back(), 1e-6);
  EXPECT_NEAR(histogram.min(), values.front(), 1e-6);
}

TEST(Histogram, MomentsMergeAndEdges) {
  Histogram a, b;
  EXPECT_EQ(a.Percentile(0.5), 0);
  EXPECT_EQ(a.mean(), 0);
  for (int i = 1; i <= 100; ++i) (i % 2 ? a : b).Record(i * 0.01);
  a.Merge(b);
  EXPECT_EQ(a.count(), 100);
  EXPECT_NEAR(a.mean(), 0.505, 1e-9);
  EXPECT_NEAR(a.deviation(), 0.28866, 1e-4);
  EXPECT_NEAR(a.Percentile(0.99), 0.99, 1e-3);
  a.Record(-5);
  EXPECT_EQ(a.min(), 0);
  a.Record(1e30);
  EXPECT_GT(a.max(), 1e8);
}

// Largest distance between the empirical distribution of the gaps and the exponential one.
TEST(Plan, PoissonGapsPassAKolmogorovSmirnovTest) {
  PlanSpec spec;
  spec.arrival.rate = 25;
  spec.requests = 5000;
  const auto plan = MakePlan(spec);
  ASSERT_EQ(plan.size(), 5000u);
  std::vector<double> gaps;
  for (size_t i = 1; i < plan.size(); ++i) gaps.push_back(plan[i].at_s - plan[i - 1].at_s);
  std::sort(gaps.begin(), gaps.end());
  double distance = 0;
  const double n = static_cast<double>(gaps.size());
  for (size_t i = 0; i < gaps.size(); ++i) {
    const double expected = 1 - std::exp(-25 * gaps[i]);
    distance = std::max({distance, std::abs(expected - i / n), std::abs(expected - (i + 1) / n)});
  }
  EXPECT_LT(distance, 1.63 / std::sqrt(n));  // critical value at the 1 % level
  // The same statistic must reject constant gaps.
  EXPECT_GT(std::abs(1 - std::exp(-25 * 0.04) - 0), 1.63 / std::sqrt(n));
}

TEST(Plan, ArrivalKindsKeepTheRate) {
  for (const char* kind : {"poisson", "constant", "gamma:0.3", "gamma:4"}) {
    PlanSpec spec;
    spec.requests = 20'000;
    ASSERT_TRUE(ParseArrival(kind, spec.arrival).ok());
    spec.arrival.rate = 10;
    const auto plan = MakePlan(spec);
    EXPECT_NEAR(plan.back().at_s, 2000, 100) << kind;
    double squares = 0;
    for (size_t i = 1; i < plan.size(); ++i) {
      squares += std::pow((plan[i].at_s - plan[i - 1].at_s) * 10 - 1, 2);
    }
    const double variation = squares / static_cast<double>(plan.size());
    const double expected = kind[0] == 'p'   ? 1
                            : kind[0] == 'c' ? 0
                            : kind[6] == '0' ? 1 / 0.3
                                             : 0.25;
    EXPECT_NEAR(variation, expected, 0.1 * expected + 1e-9) << kind;
  }
  ArrivalSpec arrival;
  EXPECT_FALSE(ParseArrival("uniform", arrival).ok());
  EXPECT_FALSE(ParseArrival("gamma:0", arrival).ok());
}

TEST(Plan, SharesAndSeed) {
  PlanSpec spec;
  spec.requests = 10'000;
  spec.items = 7;
  spec.mix = *ParseMix("ask=0.7,upload=0.2,estimate=0.1");
  spec.cancel_rate = 0.3;
  spec.slow_reader_share = 0.05;
  spec.cold_share = 0.5;
  const auto plan = MakePlan(spec), again = MakePlan(spec);
  int uploads = 0, cancels = 0, slow = 0, cold = 0, items[7] = {};
  for (size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan[i].at_s, again[i].at_s);
    EXPECT_EQ(plan[i].item, again[i].item);
    uploads += plan[i].kind == RequestKind::kUpload;
    cancels += plan[i].cancel_after_s >= 0;
    slow += plan[i].slow_reader;
    cold += plan[i].cold;
    ++items[plan[i].item];
  }
  EXPECT_NEAR(uploads, 2000, 150);
  EXPECT_NEAR(cancels, 3000, 150);
  EXPECT_NEAR(slow, 500, 80);
  EXPECT_NEAR(cold, 5000, 150);
  for (const int count : items) EXPECT_NEAR(count, 10'000 / 7, 150);
  spec.seed = 2;
  EXPECT_NE(MakePlan(spec)[10].at_s, plan[10].at_s);
  // Other choices keep the arrival times.
  spec.seed = 1;
  spec.cancel_rate = 0;
  EXPECT_EQ(MakePlan(spec)[999].at_s, plan[999].at_s);
}

TEST(Plan, WarmupDurationAndTrace) {
  PlanSpec spec;
  spec.arrival.kind = ArrivalSpec::Kind::kConstant;
  spec.arrival.rate = 10;
  spec.requests = 0;
  spec.duration_s = 5;
  spec.warmup_s = 1;
  auto plan = MakePlan(spec);
  EXPECT_EQ(plan.size(), 60u);
  EXPECT_EQ(std::count_if(plan.begin(), plan.end(), [](auto& r) { return r.warmup; }), 10);
  spec.requests = 20;
  spec.warmup_s = 0;
  spec.warmup_requests = 3;
  plan = MakePlan(spec);
  EXPECT_EQ(plan.size(), 23u);
  const auto trace = ParseTrace("{\"at_s\": 0.5}\n\n{\"at_s\": 0.75, \"item\": 3}\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  spec.arrival.kind = ArrivalSpec::Kind::kTrace;
  spec.arrival.trace = *trace;
  spec.requests = 0;
  spec.items = 2;
  plan = MakePlan(spec);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[1].at_s, 0.75);
  EXPECT_EQ(plan[1].item, 1);
  EXPECT_FALSE(ParseTrace("").ok());
  EXPECT_THAT(std::string(ParseTrace("{\"at_s\": 2}\n{\"at_s\": 1}").status().message()),
              HasSubstr("line 2"));
  EXPECT_FALSE(ParseMix("ask=x").ok());
  EXPECT_FALSE(ParseMix("dance=1").ok());
  EXPECT_FALSE(ParseMix("ask=0").ok());
}

Sample Answered(int64_t index, double scheduled, double ttft, double e2e) {
  Sample sample;
  sample.plan.index = index;
  sample.scheduled_s = sample.sent_s = scheduled;
  sample.first_text_s = scheduled + ttft;
  sample.last_text_s = scheduled + e2e;
  sample.end_s = scheduled + e2e;
  sample.finished = true;
  sample.code = "OK";
  sample.tokens = 11;
  sample.gaps_s.assign(10, static_cast<float>((e2e - ttft) / 10));
  sample.answer = "yes";
  sample.result = SampleResult();
  return sample;
}

std::vector<Sample> Hundred() {
  std::vector<Sample> samples;
  for (int i = 1; i <= 100; ++i) samples.push_back(Answered(i, i * 0.1, i * 0.01, i * 0.02));
  return samples;
}

TEST(Summary, PercentilesAndGoodputAreAnalytic) {
  Slo slo;
  slo.ttft_s = 0.5;
  const BenchSummary summary = Summarize(Hundred(), slo, true);
  EXPECT_EQ(summary.ok, 100);
  EXPECT_NEAR(summary.Find("ttft")->histogram.Percentile(0.5), 0.5, 1e-3);
  EXPECT_NEAR(summary.Find("ttft")->histogram.Percentile(0.99), 0.99, 1e-3);
  EXPECT_NEAR(summary.Find("e2e")->histogram.mean(), 1.01, 1e-6);
  EXPECT_NEAR(summary.Find("tpot")->histogram.max(), 0.1, 1e-3);
  EXPECT_NEAR(summary.Find("prefill")->histogram.mean(), 2.1, 1e-6);
  EXPECT_EQ(summary.good, 50);
  EXPECT_NEAR(summary.goodput_share, 0.5, 1e-9);
  EXPECT_NEAR(summary.mean_budget, 0.115, 1e-9);
  EXPECT_NEAR(summary.wall_s, 10 + 2 - 0.1, 1e-6);
  EXPECT_THAT(summary.saturation, HasSubstr("above what the server sustains"));
  int64_t tokens = 0;
  for (const SecondOfRun& second : summary.seconds) tokens += second.tokens;
  EXPECT_EQ(tokens, 1100);
}

TEST(Summary, EveryEndIsCountedOnce) {
  std::vector<Sample> samples = Hundred();
  samples[0].code = "UNAVAILABLE";
  samples[0].reason = "QUEUE_FULL";
  samples[0].finished = false;
  samples[1].end_s = -1;  // nothing ever came
  samples[1].finished = false;
  samples[2].finished = false;  // OK without a final event
  samples[3].code = "CANCELLED";
  samples[3].cancelled_by_us = true;
  samples[3].finished = false;
  samples[4].dropped = true;
  samples[4].sent_s = -1;
  samples[5].plan.warmup = true;
  samples[6].sent_s = -1;  // a closed loop that ended before its turn
  const BenchSummary summary = Summarize(samples, {}, false);
  EXPECT_EQ(summary.scheduled, 98);
  EXPECT_EQ(summary.dropped, 1);
  EXPECT_EQ(summary.sent, 97);
  EXPECT_EQ(summary.failed, 1);
  EXPECT_EQ(summary.lost, 2);
  EXPECT_EQ(summary.cancelled, 1);
  EXPECT_EQ(summary.ok, 93);
  EXPECT_EQ(summary.warmup, 1);
  EXPECT_EQ(summary.ok + summary.failed + summary.cancelled + summary.lost, summary.sent);
  EXPECT_EQ(summary.errors.at("UNAVAILABLE QUEUE_FULL"), 1);
}

TEST(Summary, SlowReadersAreKeptApart) {
  std::vector<Sample> samples = Hundred();
  samples[99].plan.slow_reader = true;
  samples[99].end_s += 1000;
  const BenchSummary summary = Summarize(samples, *ParseSlo("ttft=1ms"), true);
  EXPECT_EQ(summary.Find("e2e")->histogram.count(), 99);
  EXPECT_LT(summary.Find("e2e")->histogram.max(), 3);
  EXPECT_GT(summary.Find("slow_reader")->histogram.max(), 1000);
  EXPECT_LT(summary.wall_s, 15);
  EXPECT_EQ(summary.good, 1);
}

TEST(Summary, SlosLookAtEveryLimit) {
  const Sample sample = Answered(0, 0, 0.5, 1.5);
  EXPECT_TRUE(IsGood(sample, {}));
  EXPECT_TRUE(IsGood(sample, *ParseSlo("ttft=1s,itl=200ms,tpot=110ms,e2e=2s")));
  EXPECT_FALSE(IsGood(sample, *ParseSlo("ttft=400ms")));
  EXPECT_FALSE(IsGood(sample, *ParseSlo("tpot=90ms")));
  EXPECT_FALSE(IsGood(sample, *ParseSlo("itl=90ms")));
  EXPECT_FALSE(IsGood(sample, *ParseSlo("e2e=1s")));
  EXPECT_FALSE(ParseSlo("ttft=fast").ok());
  EXPECT_FALSE(ParseSlo("speed=1s").ok());
  EXPECT_FALSE(ParseSlo("ttft=0").ok());
}

TEST(Judge, ExpectedAnswersAndEqualOnes) {
  std::vector<BenchItem> items(3);
  items[0].expected = "yes";
  items[1].name = "clip 1";
  items[2].question.mutable_generation()->set_temperature(1);
  std::vector<Sample> samples(8, Answered(0, 0, 1, 2));
  samples[0].answer = " yes\n";
  samples[1].answer = "no";
  for (int i : {2, 3, 4}) samples[i].plan.item = 1;
  samples[3].answer = "other";
  samples[4].result.set_finish_reason(proto::AskResult::FINISH_REASON_DRAIN);
  samples[4].answer = "partial";
  for (int i : {5, 6}) samples[i].plan.item = 2;
  samples[6].answer = "chance";
  samples[7].code = "CANCELLED";
  samples[7].finished = false;
  JudgeAnswers(items, samples);
  EXPECT_EQ(samples[0].verdict, Verdict::kRight);
  EXPECT_EQ(samples[1].verdict, Verdict::kWrong);
  EXPECT_EQ(samples[2].verdict, Verdict::kRight);
  EXPECT_EQ(samples[3].verdict, Verdict::kWrong);
  EXPECT_THAT(samples[3].wrong_because, HasSubstr("clip 1"));
  for (int i : {4, 5, 6, 7}) EXPECT_EQ(samples[i].verdict, Verdict::kUnchecked) << i;
  items[0].expect_prefix = true;
  samples[1].answer = "yes, they do";
  JudgeAnswers(items, samples);
  EXPECT_EQ(samples[1].verdict, Verdict::kRight);
  samples[3].verdict = Verdict::kUnchecked;
  samples[3].own_prompt = true;  // another prompt may have another answer
  samples[1].own_prompt = true;
  JudgeAnswers(items, samples);
  EXPECT_EQ(samples[3].verdict, Verdict::kUnchecked);
  EXPECT_EQ(samples[1].verdict, Verdict::kRight);
}

TEST(Output, TextJsonCsvAndPage) {
  std::vector<Sample> samples = Hundred();
  samples[7].code = "INTERNAL";
  samples[7].reason = "a,\"b\"";
  samples[7].finished = false;
  const BenchSummary summary = Summarize(samples, *ParseSlo("ttft=500ms"), true);
  const BenchHeader header = {{"server", "here"}, {"flags", "--rate 2 </script>"}};
  const std::string text = BenchText(header, summary, Painter(false));
  for (const char* part : {"ttft", "p99.9", "goodput", "ttft ≤ 500 ms", "INTERNAL a,\"b\"",
                           "phases", "0 lost, 0 wrong"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (line.find("saturated") != absl::string_view::npos) continue;
    EXPECT_LE(DisplayWidth(line), 100) << line;
  }
  const auto json = ParseJson(BenchJson(header, summary, samples));
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(StringAt(*json, "schema", ""), "videonsa.bench/1");
  EXPECT_EQ(NumberAt(*json, "counts.ok", 0), 99);
  EXPECT_EQ(NumberAt(*json, "counts.lost", -1), 0);
  EXPECT_NEAR(NumberAt(*json, "metrics_s.ttft.p50", 0), 0.51, 0.011);
  const auto& columns = Member(*json, "requests_s")->struct_value().fields();
  EXPECT_EQ(columns.at("e2e").list_value().values_size(), 99);
  const std::string csv = BenchCsv(samples);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 101);
  EXPECT_THAT(csv, HasSubstr("\"a,\"\"b\"\"\""));
  const std::string html = BenchHtml(header, summary);
  EXPECT_THAT(html, HasSubstr("first text"));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("://"))) << "no network";
  EXPECT_THAT(BenchHtml({}, BenchSummary{}), Not(HasSubstr("nan")));
}

TEST(Compare, FindsChangesThatAreNoChance) {
  std::mt19937 random(1);
  std::vector<Sample> before, same, slower;
  for (int i = 0; i < 300; ++i) {
    const double noise = std::uniform_real_distribution<>(0.9, 1.1)(random);
    before.push_back(Answered(i, i, 0.5 * noise, 2 * noise));
    const double other = std::uniform_real_distribution<>(0.9, 1.1)(random);
    same.push_back(Answered(i, i, 0.5 * other, 2 * other));
    slower.push_back(Answered(i, i, 0.6 * other, 2.1 * other));
  }
  const auto json = [](const std::vector<Sample>& samples) {
    return BenchJson({}, Summarize(samples, {}, true), samples);
  };
  const auto equal = CompareRuns(json(before), json(same), 0.05, 1);
  ASSERT_TRUE(equal.ok());
  EXPECT_FALSE(equal->regressed) << equal->text;
  const auto worse = CompareRuns(json(before), json(slower), 0.05, 1);
  EXPECT_TRUE(worse->regressed);
  EXPECT_THAT(worse->text, HasSubstr("ttft mean"));
  const auto better = CompareRuns(json(slower), json(before), 0.05, 1);
  EXPECT_FALSE(better->regressed);
  EXPECT_THAT(better->text, HasSubstr("better"));
  std::vector<Sample> lost = same;
  lost[0].finished = false;
  EXPECT_TRUE(CompareRuns(json(before), json(lost), 0.05, 1)->regressed);
  EXPECT_FALSE(CompareRuns("{}", "{}", 0.05, 1).ok());
  EXPECT_FALSE(CompareRuns("nonsense", json(same), 0.05, 1).ok());
}

TEST(MadeUnique, AppendsABoxThatReadersSkip) {
  const std::string clip = std::string("\0\0\0\x10", 4) + "ftypisom" + std::string(4, '\0');
  const std::string one = MadeUnique(clip, 1), two = MadeUnique(clip, 2);
  EXPECT_EQ(one.size(), clip.size() + 24);
  EXPECT_EQ(one.substr(0, clip.size()), clip);
  EXPECT_EQ(one.substr(clip.size(), 8), std::string("\0\0\0\x18"
                                                    "free",
                                                    8));
  EXPECT_NE(one, two);
  EXPECT_EQ(MadeUnique("GIF89a........", 1), "GIF89a........");
}

}  // namespace
}  // namespace videonsa::client
