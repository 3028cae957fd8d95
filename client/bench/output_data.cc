#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/output.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

void WriteMetric(const Metric& metric, JsonWriter& json) {
  const Histogram& h = metric.histogram;
  json.Key(metric.name).BeginObject();
  json.Key("clock").String(metric.server ? "server" : "client");
  json.Key("count").Integer(h.count());
  json.Key("mean").Number(h.mean()).Key("std").Number(h.deviation()).Key("min").Number(h.min());
  for (const auto& [name, p] : ShownPercentiles()) json.Key(name).Number(h.Percentile(p));
  json.Key("max").Number(h.max()).Key("too_few_for").BeginArray();
  for (const auto& [name, p] : ShownPercentiles()) {
    if (TooFew(h, p)) json.String(name);
  }
  json.EndArray().EndObject();
}

void WriteCounts(const BenchSummary& s, JsonWriter& json) {
  json.Key("counts").BeginObject();
  const std::pair<const char*, int64_t> counts[] = {
      {"scheduled", s.scheduled}, {"dropped", s.dropped},
      {"sent", s.sent},           {"ok", s.ok},
      {"failed", s.failed},       {"lost", s.lost},
      {"wrong", s.wrong},         {"checked", s.checked},
      {"cancelled", s.cancelled}, {"warmup", s.warmup}};
  for (const auto& [name, count] : counts) json.Key(name).Integer(count);
  json.EndObject().Key("errors").BeginObject();
  for (const auto& [error, count] : s.errors) json.Key(error).Integer(count);
  json.EndObject().Key("wrong_examples").BeginArray();
  for (const std::string& example : s.wrong_examples) json.String(example);
  json.EndArray();
}

void WriteRates(const BenchSummary& s, JsonWriter& json) {
  json.Key("rates").BeginObject();
  json.Key("wall_s").Number(s.wall_s).Key("requests_per_s").Number(s.requests_per_s);
  json.Key("output_tokens_per_s").Number(s.output_tokens_per_s);
  json.Key("vision_tokens_per_s").Number(s.vision_tokens_per_s);
  json.Key("frames_per_s").Number(s.frames_per_s);
  json.Key("uploaded_bytes_per_s").Number(s.uploaded_bytes_per_s).EndObject();
  json.Key("goodput").BeginObject().Key("slo").String(SloText(s.slo)).Key("good").Integer(s.good);
  json.Key("share").Number(s.goodput_share).Key("per_s").Number(s.goodput_per_s).EndObject();
  json.Key("attention").BeginObject().Key("mean_budget_fraction").Number(s.mean_budget);
  for (const auto& [branch, share] : s.branch_shares) json.Key(branch).Number(share);
  json.EndObject().Key("reuse").BeginObject().Key("exact_share").Number(s.reuse_exact_share);
  json.Key("features_share").Number(s.reuse_features_share).EndObject();
  json.Key("estimates").BeginObject();
  const std::pair<const char*, const Histogram*> errors[] = {
      {"first_token", &s.estimate_first_error}, {"last_token", &s.estimate_total_error}};
  for (const auto& [name, error] : errors) {
    json.Key(name).BeginObject().Key("count").Integer(error->count());
    json.Key("median_error_ratio").Number(error->Percentile(0.5));
    json.Key("p95_error_ratio").Number(error->Percentile(0.95)).EndObject();
  }
  json.EndObject();
  json.Key("saturation").String(s.saturation);
}

double SecondsOf(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

// Values of the measured asks that were answered, one array a quantity.
void WriteColumns(const std::vector<Sample>& samples, JsonWriter& json) {
  struct Column {
    const char* name;
    double (*value)(const Sample&);
  };
  static constexpr Column kColumns[] = {
      {"scheduled", [](const Sample& s) { return s.scheduled_s; }},
      {"ttft", [](const Sample& s) { return s.first_text_s - s.scheduled_s; }},
      {"tpot", [](const Sample& s) { return TimePerToken(s); }},
      {"e2e", [](const Sample& s) { return s.end_s - s.scheduled_s; }},
      {"queue", [](const Sample& s) { return SecondsOf(s.result.timing().queue()); }},
      {"decode", [](const Sample& s) { return SecondsOf(s.result.timing().decode()); }},
      {"vision", [](const Sample& s) { return SecondsOf(s.result.timing().vision_encode()); }},
      {"prefill", [](const Sample& s) { return SecondsOf(s.result.timing().prefill()); }}};
  json.Key("requests_s").BeginObject();
  for (const Column& column : kColumns) {
    json.Key(column.name);
    JsonWriter row(false);
    row.BeginArray();
    for (const Sample& sample : samples) {
      const bool shown = sample.ok() && !sample.plan.warmup && !sample.plan.slow_reader &&
                         sample.plan.kind == RequestKind::kAsk && sample.first_text_s >= 0;
      if (shown) row.Number(column.value(sample));
    }
    json.Raw(row.EndArray().text());
  }
  json.EndObject();
}

std::string CsvCell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) absl::StrAppend(&out, c == '"' ? "\"\"" : std::string(1, c));
  return out + '"';
}

std::string CsvTime(double seconds) {
  return seconds < 0 ? std::string() : absl::StrFormat("%.6f", seconds);
}

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kRight:
      return "right";
    case Verdict::kWrong:
      return "wrong";
    case Verdict::kUnchecked:
      break;
  }
  return "";
}

}  // namespace

std::string BenchJson(const BenchHeader& header, const BenchSummary& summary,
                      const std::vector<Sample>& samples) {
  JsonWriter json;
  json.BeginObject().Key("schema").String("videonsa.bench/1").Key("run").BeginObject();
  for (const auto& [name, value] : header) json.Key(name).String(value);
  json.EndObject().Key("open_loop").Bool(summary.open_loop);
  WriteCounts(summary, json);
  WriteRates(summary, json);
  json.Key("metrics_s").BeginObject();
  for (const Metric& metric : summary.metrics) WriteMetric(metric, json);
  json.EndObject().Key("seconds").BeginArray();
  for (const SecondOfRun& second : summary.seconds) {
    JsonWriter row(false);
    row.BeginObject().Key("started").Integer(second.started).Key("ended").Integer(second.ended);
    row.Key("failed").Integer(second.failed).Key("tokens").Integer(second.tokens);
    json.Raw(row.Key("inflight").Integer(second.inflight).EndObject().text());
  }
  json.EndArray();
  WriteColumns(samples, json);
  return json.EndObject().text() + "\n";
}

std::string BenchCsv(const std::vector<Sample>& samples) {
  std::string out =
      "index,kind,item,warmup,cold,slow_reader,scheduled_s,sent_s,first_text_s,last_text_s,end_s,"
      "state,code,reason,tokens,verdict,queue_s,fetch_s,decode_s,preprocess_s,vision_s,prefill_s,"
      "generate_s,server_total_s,prompt_tokens,frames,budget_fraction,kv_reuse\n";
  for (const Sample& s : samples) {
    const char* state = s.dropped           ? "dropped"
                        : !s.sent()         ? "unsent"
                        : s.lost()          ? "lost"
                        : s.cancelled_by_us ? "cancelled"
                        : s.ok()            ? "ok"
                                            : "failed";
    const proto::Timing& t = s.result.timing();
    const bool answered = s.ok() && s.result.has_timing();
    absl::StrAppend(&out, s.plan.index, ",", KindName(s.plan.kind), ",", s.plan.item, ",",
                    s.plan.warmup, ",", s.plan.cold, ",", s.plan.slow_reader, ",",
                    CsvTime(s.scheduled_s), ",", CsvTime(s.sent_s), ",", CsvTime(s.first_text_s),
                    ",", CsvTime(s.last_text_s), ",", CsvTime(s.end_s), ",", state, ",");
    absl::StrAppend(&out, s.code, ",", CsvCell(s.reason), ",", s.tokens, ",",
                    VerdictName(s.verdict));
    for (const auto* phase : {&t.queue(), &t.fetch(), &t.decode(), &t.preprocess(),
                              &t.vision_encode(), &t.prefill(), &t.generate(), &t.total()}) {
      absl::StrAppend(&out, ",", answered ? CsvTime(SecondsOf(*phase)) : "");
    }
    const proto::PromptTokens& prompt = s.result.usage().prompt();
    absl::StrAppend(&out, ",", prompt.text() + prompt.vision(), ",", s.result.usage().frames_used(),
                    ",", s.result.attention().budget_fraction(), ",",
                    s.result.kv_reuse() == proto::KV_REUSE_EXACT      ? "exact"
                    : s.result.kv_reuse() == proto::KV_REUSE_FEATURES ? "features"
                                                                      : "none",
                    "\n");
  }
  return out;
}

}  // namespace videonsa::client
