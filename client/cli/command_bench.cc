#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/bench/output.h"
#include "client/cli/command.h"
#include "client/cli/question_flags.h"
#include "client/cli/synthetic.h"
#include "client/cli/visuals.h"
#include "client/digest.h"
#include "client/eval/dataset.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

struct BenchSetup {
  PlanSpec plan;
  RunOptions run;
  Slo slo;
  int channels = 1;
  double min_goodput = 0;
};

// Reads shares and counts; every bad value is a usage error that names its flag.
class Reader {
 public:
  explicit Reader(const ParsedArgs& args) : args_(args) {}

  double Number(const char* flag, double fallback, double low, double high) {
    const absl::StatusOr<double> value = args_.Number(flag, fallback);
    if (!value.ok()) {
      Fail(value.status());
      return fallback;
    }
    if (!(*value >= low && *value <= high)) {
      Fail(absl::InvalidArgumentError(
          absl::StrFormat("--%s: %g is not in [%g, %g]", flag, *value, low, high)));
    }
    return *value;
  }
  int64_t Integer(const char* flag, int64_t fallback, int64_t low, int64_t high) {
    const double value = Number(flag, static_cast<double>(fallback), static_cast<double>(low),
                                static_cast<double>(high));
    if (value != static_cast<double>(static_cast<int64_t>(value))) {
      Fail(absl::InvalidArgumentError(absl::StrCat("--", flag, " must be a whole number")));
    }
    return static_cast<int64_t>(value);
  }
  absl::Duration Time(const char* flag, absl::Duration fallback) {
    const absl::StatusOr<absl::Duration> value = args_.Time(flag, fallback);
    if (!value.ok()) Fail(value.status());
    return value.ok() ? *value : fallback;
  }
  void Fail(const absl::Status& status) { status_.Update(status); }
  const absl::Status& status() const { return status_; }

 private:
  const ParsedArgs& args_;
  absl::Status status_;
};

absl::Status ReadArrival(const ParsedArgs& args, Reader& read, ArrivalSpec& arrival) {
  if (args.Has("concurrency")) {
    for (const char* flag : {"rate", "arrival", "trace"}) {
      if (!args.Has(flag)) continue;
      return absl::InvalidArgumentError(absl::StrCat("--concurrency (closed loop) and --", flag,
                                                     " (open loop) exclude each other"));
    }
    arrival.kind = ArrivalSpec::Kind::kClosed;
    arrival.concurrency = static_cast<int>(read.Integer("concurrency", 1, 1, 10'000));
    return absl::OkStatus();
  }
  if (args.Has("arrival")) {
    if (absl::Status status = ParseArrival(args.Get("arrival"), arrival); !status.ok())
      return status;
  }
  if (args.Has("trace")) {
    absl::StatusOr<std::string> text = ReadFile(args.Get("trace"));
    if (!text.ok()) return text.status();
    auto trace = ParseTrace(*text);
    if (!trace.ok()) return trace.status();
    arrival.kind = ArrivalSpec::Kind::kTrace;
    arrival.trace = *std::move(trace);
  }
  std::string rate = args.Has("rate") ? args.Get("rate") : "1";
  if (rate.size() > 2 && rate.substr(rate.size() - 2) == "/s") rate.resize(rate.size() - 2);
  if (!absl::SimpleAtod(rate, &arrival.rate) || !(arrival.rate > 0) || arrival.rate > 1e6) {
    return absl::InvalidArgumentError(
        absl::StrCat("--rate: \"", args.Get("rate"), "\" is no rate; write 2 or 0.5/s"));
  }
  return absl::OkStatus();
}

void ReadWarmup(const ParsedArgs& args, Reader& read, PlanSpec& plan) {
  if (!args.Has("warmup")) return;
  if (absl::SimpleAtoi(args.Get("warmup"), &plan.warmup_requests)) {
    read.Integer("warmup", 0, 0, 1'000'000);
    return;
  }
  plan.warmup_s = absl::ToDoubleSeconds(read.Time("warmup", absl::ZeroDuration()));
}

absl::StatusOr<BenchSetup> SetupOf(const ParsedArgs& args) {
  BenchSetup setup;
  Reader read(args);
  PlanSpec& plan = setup.plan;
  if (absl::Status status = ReadArrival(args, read, plan.arrival); !status.ok()) return status;
  plan.duration_s = absl::ToDoubleSeconds(read.Time("duration", absl::ZeroDuration()));
  const bool bounded = plan.duration_s > 0 || plan.arrival.kind == ArrivalSpec::Kind::kTrace;
  plan.requests = read.Integer("requests", bounded ? 0 : 100, 0, 10'000'000);
  if (plan.requests == 0 && !bounded) {
    read.Fail(absl::InvalidArgumentError("--requests 0 needs --duration"));
  }
  ReadWarmup(args, read, plan);
  if (!plan.arrival.open() && plan.warmup_s > 0) {
    read.Fail(absl::InvalidArgumentError("--warmup of a closed loop is a number of requests"));
  }
  if (args.Has("mix")) {
    auto mix = ParseMix(args.Get("mix"));
    if (mix.ok()) plan.mix = *mix;
    read.Fail(mix.status());
  }
  plan.cold_share = read.Number("cold-share", 0, 0, 1);
  plan.cancel_rate = read.Number("cancel-rate", 0, 0, 1);
  plan.cancel_within_s = absl::ToDoubleSeconds(read.Time("cancel-within", absl::Seconds(2)));
  plan.slow_reader_share = read.Number("slow-readers", 0, 0, 1);
  plan.seed = static_cast<uint64_t>(read.Integer("seed", 1, 0, int64_t{1} << 53));
  setup.run.closed_loop = !plan.arrival.open();
  setup.run.concurrency = plan.arrival.concurrency;
  setup.run.duration_s = plan.duration_s;
  setup.run.max_inflight = static_cast<int>(read.Integer("max-inflight", 512, 1, 100'000));
  setup.run.timeout = read.Time("timeout", absl::Minutes(2));
  setup.run.unique_prefix = args.Has("unique-prefix");
  setup.channels = static_cast<int>(read.Integer("channels", 4, 1, 256));
  setup.min_goodput = read.Number("min-goodput", 0, 0, 1);
  if (args.Has("slo")) {
    auto slo = ParseSlo(args.Get("slo"));
    if (slo.ok()) setup.slo = *slo;
    read.Fail(slo.status());
  }
  if (!read.status().ok()) return read.status();
  return setup;
}

// Where the questions of a load come from; one source a run.
class ItemMaker {
 public:
  ItemMaker(const CommandContext& context, OpenedClient& opened, bool uploads)
      : context_(context), args_(context.args), opened_(opened), uploads_(uploads) {}
  ~ItemMaker() {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }

  absl::StatusOr<std::vector<BenchItem>> Make() {
    if (absl::Status status = Prepare(); !status.ok()) return status;
    absl::Status status;
    if (args_.Has("dataset")) {
      status = FromDataset();
    } else if (!args_.arguments().empty()) {
      status = FromWords();
    } else {
      status = FromSynthetic();
    }
    if (!status.ok()) return status;
    return std::move(items_);
  }

 private:
  absl::Status Prepare() {
    auto sampling = SamplingOf(args_);
    if (!sampling.ok()) return sampling.status();
    sampling_ = *sampling;
    return ApplySettings(args_, base_);
  }

  // `clip` as the command line would name it; delivered once, however often it is asked about.
  absl::Status Add(const std::string& name, const std::string& clip, const std::string& question,
                   const std::string& expected, bool prefix) {
    BenchItem item{.name = name, .question = base_, .expected = expected, .expect_prefix = prefix};
    proto::Turn& turn = *item.question.add_turns();
    turn.set_role(proto::Turn::ROLE_USER);
    turn.add_parts()->set_text(question);
    if (!clip.empty()) {
      auto found = delivered_.find(clip);
      if (found == delivered_.end()) {
        CommandSpec spec{.max_arguments = 1};
        auto words = ParseArgs(spec, {"--", clip});
        if (!words.ok()) return words.status();
        auto visuals = VisualsOf(*words);
        if (!visuals.ok()) return visuals.status();
        auto parts = DeliverVisuals(context_, opened_, *visuals,
                                    {.sampling = sampling_, .always_upload = args_.Has("upload")});
        if (!parts.ok()) return parts.status();
        found = delivered_.emplace(clip, *std::move(parts)).first;
      }
      PutVisuals(found->second, item.question);
      if (std::filesystem::is_regular_file(clip)) item.upload_path = clip;
    }
    if (uploads_ && item.upload_path.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--mix upload: ", name, " has no file to upload"));
    }
    items_.push_back(std::move(item));
    return absl::OkStatus();
  }

  absl::Status FromDataset() {
    const std::string path = args_.Get("dataset");
    auto records = ReadDataset(path);
    if (!records.ok()) return records.status();
    for (const DatasetRecord& record : *records) {
      const std::string question = TextField(record.value, "question");
      if (question.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, " line ", record.line, " has no \"question\""));
      }
      const std::string clip = TextField(record.value, "clip");
      const absl::Status status = Add(
          absl::StrCat("line ", record.line), clip.empty() ? "" : ResolveClip(path, clip), question,
          TextField(record.value, "expected"), TextField(record.value, "match") == "prefix");
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status FromWords() {
    const std::string question =
        args_.Has("question") ? args_.Get("question") : "What happens in this clip?";
    for (const std::string& clip : args_.arguments()) {
      if (absl::Status status = Add(clip, clip, question, "", false); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status FromSynthetic() {
    auto spec = ParseSynthetic(args_.Get("synthetic"));
    if (!spec.ok()) return spec.status();
    auto count = args_.Integer("clips", 4);
    if (!count.ok()) return count.status();
    if (*count < 1 || *count > 10'000) {
      return absl::InvalidArgumentError("--clips is not in [1, 10000]");
    }
    if (!sampling_.has_fps() && !sampling_.has_num_frames()) sampling_.set_num_frames(spec->frames);
    proto::GenerationConfig& generation = *base_.mutable_generation();
    if (!generation.has_max_output_tokens()) generation.set_max_output_tokens(spec->output_tokens);
    generation.set_ignore_eos(spec->ignore_eos);
    std::error_code ignored;
    folder_ =
        (std::filesystem::temp_directory_path(ignored) / ("videonsa-" + RandomUuid())).string();
    std::filesystem::create_directory(folder_, ignored);
    for (int i = 0; i < *count; ++i) {
      context_.console.Status(absl::StrCat("making clip ", i + 1, " of ", *count, " ..."));
      auto bytes = MakeClip(*spec, i);
      if (!bytes.ok()) return bytes.status();
      const std::string path = absl::StrCat(folder_, "/synthetic-", i, ".mp4");
      if (absl::Status written = WriteFile(path, *bytes); !written.ok()) return written;
      const absl::Status status =
          Add(absl::StrCat("clip ", i), path, MakeQuestion(spec->question_tokens, i), "", false);
      if (!status.ok()) return status;
    }
    context_.console.ClearStatus();
    return absl::OkStatus();
  }

  const CommandContext& context_;
  const ParsedArgs& args_;
  OpenedClient& opened_;
  const bool uploads_;
  std::string folder_;  // of synthetic clips
  proto::Question base_;
  proto::VideoSampling sampling_;
  std::map<std::string, std::vector<proto::Part>> delivered_;
  std::vector<BenchItem> items_;
};

std::string ArrivalText(const ArrivalSpec& arrival) {
  switch (arrival.kind) {
    case ArrivalSpec::Kind::kClosed:
      return absl::StrCat("closed loop, ", arrival.concurrency, " users");
    case ArrivalSpec::Kind::kTrace:
      return absl::StrCat("open loop, trace of ", arrival.trace.size(), " requests");
    case ArrivalSpec::Kind::kConstant:
      return absl::StrFormat("open loop, constant, %g/s", arrival.rate);
    case ArrivalSpec::Kind::kGamma:
      return absl::StrFormat("open loop, gamma shape %g, %g/s", arrival.gamma_shape, arrival.rate);
    case ArrivalSpec::Kind::kPoisson:
      break;
  }
  return absl::StrFormat("open loop, Poisson, %g/s", arrival.rate);
}

std::string JoinFilled(const char* separator, std::vector<std::string> parts) {
  std::erase(parts, "");
  return absl::StrJoin(parts, separator);
}

BenchHeader HeaderOf(const CommandContext& context, OpenedClient& opened, const BenchSetup& setup,
                     const proto::ModelInfo& model) {
  std::vector<std::string> flags;
  for (const auto& [flag, value] : context.args.in_order()) {
    flags.push_back(flag.empty() ? value
                                 : absl::StrCat("--", flag, value.empty() ? "" : " ", value));
  }
  BenchHeader header = {{"server", opened.channel.address}};
  auto status = opened.client->GetServerStatus(opened.call);
  if (status.ok()) {
    header.emplace_back("version", JoinFilled(" ", {status->version(), status->commit()}));
    std::vector<std::string> devices;
    for (const proto::Device& device : status->devices()) devices.push_back(device.name());
    if (!devices.empty()) header.emplace_back("devices", absl::StrJoin(devices, ", "));
  }
  header.emplace_back(
      "model",
      JoinFilled(", ", {JoinFilled("@", {model.name(), model.weights_digest().substr(0, 16)}),
                        model.dtype(), model.attention_semantics(),
                        model.random_weights() ? "random weights" : ""}));
  header.emplace_back("client", absl::StrCat("videonsa ", VIDEONSA_VERSION, ", steady clock"));
  header.emplace_back("load", absl::StrCat(ArrivalText(setup.plan.arrival), ", seed ",
                                           setup.plan.seed, ", ", setup.channels, " channels"));
  header.emplace_back("flags", absl::StrJoin(flags, " "));
  header.emplace_back("started",
                      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()));
  return header;
}

absl::Status WriteResults(const ParsedArgs& args, const BenchHeader& header,
                          const BenchSummary& summary, const std::vector<Sample>& samples) {
  absl::Status status;
  if (args.Has("json")) {
    status.Update(WriteFile(args.Get("json"), BenchJson(header, summary, samples)));
  }
  if (args.Has("csv")) status.Update(WriteFile(args.Get("csv"), BenchCsv(samples)));
  if (args.Has("html")) status.Update(WriteFile(args.Get("html"), BenchHtml(header, summary)));
  return status;
}

int RunBench(CommandContext& context) {
  absl::StatusOr<BenchSetup> setup = SetupOf(context.args);
  if (!setup.ok()) return UsageError(context, setup.status());
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Minutes(2));
  if (!opened.ok()) return UsageError(context, opened.status());
  auto model = opened->client->GetModel(opened->call);
  if (!model.ok()) return Failure(context, model.status());
  const bool uploads = std::any_of(setup->plan.mix.begin(), setup->plan.mix.end(), [](auto& share) {
    return share.first == RequestKind::kUpload && share.second > 0;
  });
  ItemMaker maker(context, *opened, uploads);
  auto items = maker.Make();
  if (!items.ok()) return Failure(context, items.status());
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < setup->channels; ++i) {
    auto channel = OpenChannel(opened->channel);
    if (!channel.ok()) return UsageError(context, channel.status());
    channels.push_back(*std::move(channel));
  }
  setup->plan.items = static_cast<int>(items->size());
  setup->run.bearer_token = opened->call.bearer_token;
  setup->run.cancellation = &context.cancellation;
  const BenchHeader header = HeaderOf(context, *opened, *setup, *model);
  Console& console = context.console;
  std::vector<Sample> samples = RunLoad(
      MakePlan(setup->plan), *items, channels, setup->run, [&](const RunProgress& progress) {
        console.Status(absl::StrFormat("%6.1f s  sent %d of %d, %d in flight, %d failed",
                                       progress.elapsed_s, progress.sent, progress.total,
                                       progress.inflight, progress.failed));
      });
  console.ClearStatus();
  JudgeAnswers(*items, samples);
  const BenchSummary summary = Summarize(samples, setup->slo, setup->plan.arrival.open());
  const Painter painter(console.options().colour && console.options().stdout_is_terminal);
  const std::string text = BenchText(header, summary, painter);
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (absl::Status written = WriteResults(context.args, header, summary, samples); !written.ok()) {
    return Failure(context, written);
  }
  const bool missed = summary.goodput_share < setup->min_goodput;
  if (missed) {
    console.Error(absl::StrCat("goodput ", Percent(summary.goodput_share), " is below ",
                               Percent(setup->min_goodput)));
  }
  return summary.lost > 0 || summary.wrong > 0 || missed ? kExitFailed : kExitOk;
}

int RunCompare(CommandContext& context) {
  const absl::StatusOr<double> threshold = context.args.Number("threshold", 0.05);
  if (!threshold.ok() || !(*threshold >= 0)) {
    return UsageError(context,
                      absl::InvalidArgumentError("--threshold must be a share, 0 or more"));
  }
  std::string texts[2];
  for (int i = 0; i < 2; ++i) {
    auto text = ReadFile(context.args.arguments()[i]);
    if (!text.ok()) return UsageError(context, text.status());
    texts[i] = *std::move(text);
  }
  const auto comparison = CompareRuns(texts[0], texts[1], *threshold, 1);
  if (!comparison.ok()) return UsageError(context, comparison.status());
  context.console.Answer(comparison->text);
  return comparison->regressed ? kExitFailed : kExitOk;
}

FlagGroup LoadFlags() {
  return {"Load",
          {{"rate", "N", "requests a second, whatever the server does: open loop (1)"},
           {"arrival", "NAME", "poisson (default), constant or gamma:SHAPE (below 1: bursts)"},
           {"trace", "FILE", "arrival times from JSONL lines {\"at_s\": 0.5, \"item\": 3}"},
           {"concurrency", "N", "closed loop instead: so many users who wait for their answers"},
           {"requests", "N", "so many measured requests (100, or as --duration allows)"},
           {"duration", "TIME", "no request is begun after this time"},
           {"warmup", "N|TIME", "first so many requests, or so long, are not measured"},
           {"max-inflight", "N", "arrivals beyond it are dropped and counted (512)"},
           {"channels", "N", "connections (4)"},
           {"mix", "SHARES", "kinds of requests: ask=0.8,upload=0.1,estimate=0.1"},
           {"cold-share", "SHARE",
            "share of asks whose clip is made new (inline MP4), so that "
            "nothing can be reused"},
           {"unique-prefix", "", "a system text of its own for every request"},
           {"cancel-rate", "SHARE", "share of asks that are cancelled"},
           {"cancel-within", "TIME", "cancelled at a random moment of this time (2s)"},
           {"slow-readers", "SHARE", "share of asks that wait 250 ms before every read"},
           {"seed", "N", "of the plan and of sampling: same seed, same load (1)"}}};
}

CommandSpec BenchSpec() {
  CommandSpec spec;
  spec.name = "bench";
  spec.arguments = "[CLIP...] [flags]";
  spec.summary = "load a running server and measure";
  spec.description =
      "Sends questions at a given rate and measures every latency from the scheduled start, so "
      "that "
      "a stall of the server shows in the percentiles. Answers are checked: against the expected "
      "one where the dataset has it, else greedy answers to the same question must be equal.\n\n"
      "Questions come from CLIPs with -q, from a dataset (JSONL lines {\"clip\": ..., "
      "\"question\": "
      "..., \"expected\": ..., \"match\": \"equal\" or \"prefix\"}), or are made up (needs the "
      "ffmpeg "
      "tool). Exit code 1 if any request was lost or any answer wrong, or goodput is too low.";
  spec.groups = {LoadFlags(),
                 {"Questions",
                  {{"dataset", "FILE", "questions from a JSONL file"},
                   {"synthetic", "SPEC",
                    "made-up clips and questions: frames=16,size=448x448,"
                    "seconds=8,question_tokens=32,output_tokens=64,"
                    "ignore_eos=1"},
                   {"clips", "N", "so many made-up clips (4)"},
                   {"question", "TEXT", "what to ask about the CLIPs", 'q'},
                   {"upload", "", "upload the clips before the load even if they are small"}}},
                 {"Judgement",
                  {{"slo", "LIMITS",
                    "what a good request keeps: ttft=2s,itl=50ms,tpot=40ms,e2e=20s "
                    "(itl: 95th percentile of its own gaps)"},
                   {"min-goodput", "SHARE", "exit code 1 if fewer requests are good"}}}};
  for (FlagGroup& group : QuestionFlags()) {
    if (group.title == "Question") continue;
    std::erase_if(group.flags, [](const Flag& flag) { return flag.name == "seed"; });
    spec.groups.push_back(std::move(group));
  }
  FlagGroup output = OutputFlags();
  output.flags[0] = {"json", "FILE", "write the result, with the values of every request"};
  output.flags.insert(output.flags.begin() + 1, {{"csv", "FILE", "write one line a request"},
                                                 {"html", "FILE", "write one page with plots"}});
  spec.groups.push_back(std::move(output));
  spec.groups.push_back(ConnectionFlags());
  spec.examples = {
      {"200 questions, two a second",
       "bench party.mp4 -q \"What happens?\" --rate 2 --requests 200"},
      {"made-up load with limits and a page",
       "bench --synthetic frames=32 --rate 1/s --duration 2m --slo ttft=3s,itl=80ms --html "
       "load.html"},
      {"bursts, cancels and slow readers",
       "bench --dataset qa.jsonl --arrival gamma:0.3 --cancel-rate 0.1 --slow-readers 0.1"},
      {"two runs side by side", "bench compare before.json after.json"}};
  spec.max_arguments = -1;
  return spec;
}

}  // namespace

std::vector<Command> BenchCommands() {
  CommandSpec compare;
  compare.name = "bench compare";
  compare.arguments = "BEFORE.json AFTER.json";
  compare.summary = "what changed between two runs of bench; exit code 1 if it got worse";
  compare.groups = {
      {"Flags", {{"threshold", "SHARE", "a change counts from this share on (0.05)"}}},
      OutputFlags()};
  compare.min_arguments = compare.max_arguments = 2;
  return {{BenchSpec(), RunBench}, {compare, RunCompare}};
}

}  // namespace videonsa::client
