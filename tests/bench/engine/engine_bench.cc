// What the engine promises about time, with random weights on the CPU.
//
// Usage: engine_bench interference CONFIG [PROMPT_TOKENS]
//        engine_bench batch CONFIG
//        engine_bench overhead [STREAMS [TOKENS]]
// Exit code 1 if a printed limit is not kept.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "runtime/base/check.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/warm_up.h"
#include "runtime/executor/executor_factory.h"
#include "tests/support/engine_fixtures.h"

namespace videonsa::bench {
namespace {

double Now() { return absl::ToDoubleSeconds(Clock::Real().Monotonic()); }

double Percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1,
                         static_cast<size_t>(p * static_cast<double>(values.size())))];
}

/// Writes down when tokens come.
class TimedStream : public AnswerStream {
 public:
  void Accepted(RequestId, int) override {}
  void Progress(const char*, int64_t, int64_t) override {}
  void Prefilled(const PromptTokens&, int64_t, absl::Duration took) override {
    prefill = absl::ToDoubleSeconds(took);
  }
  void Token(const SampledToken&) override { tokens.push_back(Now()); }
  void Finish(const absl::Status& status, GenerateResult) override {
    VNSA_CHECK(status.ok()) << status;
    finished = true;
  }
  std::vector<double> tokens;
  double prefill = 0;
  bool finished = false;
};

/// The engine's core over a real executor, without threads.
class Bench {
 public:
  Bench(const char* config, EngineOptions options, int pages) {
    ExecutorOptions executor;
    executor.dummy_weights = true;
    executor.dummy_config_path = config;
    executor.num_pages = pages;
    auto created = CreateExecutor(executor);
    VNSA_CHECK(created.ok()) << created.status();
    executor_ = *std::move(created);
    auto samples = MeasureCosts(*executor_, {.seconds = 0.3});
    VNSA_CHECK(samples.ok()) << samples.status();
    options.cost_samples = *std::move(samples);
    runner_ = std::make_unique<JobRunner>(executor_.get());
    core_ = std::make_unique<EngineCore>(options, executor_->info(), Clock::Real(), nullptr);
  }

  std::shared_ptr<TimedStream> Ask(int prompt_tokens, int output_tokens) {
    auto stream = std::make_shared<TimedStream>();
    Request request;
    request.id = RequestId{next_id_};
    request.tenant = "t";
    request.receive = Clock::Real().Monotonic();
    request.stream = stream;
    request.cancelled = std::make_shared<std::atomic<bool>>(false);
    PromptShape shape;
    shape.seed = next_id_++;
    shape.text_after = prompt_tokens - shape.text_before;
    shape.max_output_tokens = output_tokens;
    shape.ignore_eos = true;
    const RequestId id = request.id;
    core_->Handle(SubmitMessage{std::move(request), 0});
    core_->Handle(ReadyMessage{id, MakePrompt(shape)});
    return stream;
  }

  bool Step() {
    std::optional<WorkerJob> job = core_->NextJob();
    if (!job) return false;
    runner_->Run(*std::move(job), [this](WorkerEvent event) {
      std::visit([this](auto&& e) { core_->Handle(EngineMessage(std::move(e))); },
                 std::move(event));
    });
    return true;
  }
  void Finish() {
    while (Step()) {
    }
  }
  const EngineCore& core() const { return *core_; }

 private:
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<JobRunner> runner_;
  std::unique_ptr<EngineCore> core_;
  uint64_t next_id_ = 1;
};

// Running answers beside a long prefill: how much each disturbs the other.
int Interference(const char* config, int prompt_tokens) {
  constexpr int kAnswers = 4, kAnswerPrompt = 256;
  EngineOptions options;
  const int pages = prompt_tokens / kPageTokens + 2 + 2 * kAnswers * (4096 / kPageTokens);
  Bench bench(config, options, pages);
  bench.Ask(1024, 64);  // the cost model sees prefills and decodes first
  bench.Finish();
  const auto alone = bench.Ask(prompt_tokens, 1);
  bench.Finish();
  std::vector<std::shared_ptr<TimedStream>> answers;
  for (int i = 0; i < kAnswers; ++i) answers.push_back(bench.Ask(kAnswerPrompt, 3800));
  while (answers.back()->tokens.size() < 500) bench.Step();
  std::vector<double> idle, beside;
  const auto gaps = [&](double begin, double end, std::vector<double>& out) {
    for (const auto& answer : answers) {
      for (size_t i = 1; i < answer->tokens.size(); ++i) {
        const double at = answer->tokens[i];
        if (at > begin && at <= end) out.push_back(at - answer->tokens[i - 1]);
      }
    }
  };
  gaps(answers.back()->tokens[20], Now(), idle);
  const double begin = Now();
  const auto long_one = bench.Ask(prompt_tokens, 1);
  while (!long_one->finished) VNSA_CHECK(bench.Step());
  gaps(begin, Now(), beside);
  const double quantum = absl::ToDoubleSeconds(absl::Seconds(options.step.seconds));
  const double limit = 1.5 * Percentile(idle, 0.99) + quantum;
  const double slowed = long_one->prefill / alone->prefill - 1;
  std::printf(
      "%d answers beside a prefill of %d tokens: gap p99 %.1f ms idle, %.1f ms beside (limit 1.5 x "
      "idle + quantum of %.0f ms = %.1f ms; %zu gaps); prefill %.2f s alone, %.2f s beside, slowed "
      "by %.1f %% (limit 15 %%)\n",
      kAnswers, prompt_tokens, 1e3 * Percentile(idle, 0.99), 1e3 * Percentile(beside, 0.99),
      1e3 * quantum, 1e3 * limit, beside.size(), alone->prefill, long_one->prefill, 100 * slowed);
  std::printf("cost model: %s\n", bench.core().Snapshot().cost->ToString().c_str());
  return Percentile(beside, 0.99) <= limit && slowed <= 0.15 ? 0 : 1;
}

double TokensPerSecond(Bench& bench, int sequences, int tokens) {
  std::vector<std::shared_ptr<TimedStream>> answers;
  for (int i = 0; i < sequences; ++i) answers.push_back(bench.Ask(256, tokens));
  while (answers.back()->tokens.empty()) bench.Step();
  const size_t before = answers.back()->tokens.size();
  const double begin = Now();
  const size_t wanted = before + static_cast<size_t>(tokens) / 2;
  while (answers.back()->tokens.size() < wanted) bench.Step();
  const double rate = static_cast<double>(wanted - before) * sequences / (Now() - begin);
  bench.Finish();
  return rate;
}

int Batch(const char* config) {
  Bench bench(config, EngineOptions{}, 16 * 8 + 8);
  double one = 0, sixteen = 0;
  for (int round = 0; round < 3; ++round) {
    one = std::max(one, TokensPerSecond(bench, 1, 64));
    sixteen = std::max(sixteen, TokensPerSecond(bench, 16, 64));
  }
  std::printf(
      "decode: %.1f tokens/s one sequence at a time, %.1f tokens/s of 16 sequences: %.2f x "
      "(target 5 x)\n",
      one, sixteen, sixteen / one);
  return sixteen / one >= 5 ? 0 : 1;
}

/// Answers at once, so that all CPU time is the engine's.
class NullExecutor : public Executor {
 public:
  explicit NullExecutor(const ExecutorInfo& info) : info_(info) {}
  const ExecutorInfo& info() const override { return info_; }
  absl::Status AddSequence(SequenceSpec spec) override { return absl::OkStatus(); }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    StepResult result;
    result.step = plan.step;
    result.decode_time = absl::Microseconds(100);
    for (const SequenceId id : plan.decode) result.tokens.push_back({.sequence = id});
    for (const PrefillSlice& slice : plan.prefill) {
      result.tokens.push_back({.sequence = slice.sequence});  // prompts are shorter than a slice
    }
    return result;
  }
  AttentionAccount Account(SequenceId) const override { return {}; }
  void ReleaseSequence(SequenceId) override {}

 private:
  const ExecutorInfo info_;
};

absl::Duration ProcessCpu() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return absl::DurationFromTimeval(usage.ru_utime) + absl::DurationFromTimeval(usage.ru_stime);
}

class CountingStream : public AnswerStream {
 public:
  explicit CountingStream(std::atomic<int>& open) : open_(open) {}
  void Accepted(RequestId, int) override {}
  void Progress(const char*, int64_t, int64_t) override {}
  void Prefilled(const PromptTokens&, int64_t, absl::Duration) override {}
  void Token(const SampledToken&) override {}
  void Finish(const absl::Status& status, GenerateResult) override {
    VNSA_CHECK(status.ok()) << status;
    --open_;
  }

 private:
  std::atomic<int>& open_;
};

int Overhead(int streams, int tokens) {
  constexpr double kLimit = 50;
  ExecutorInfo info;
  info.num_layers = 28;
  info.num_q_heads = info.num_kv_heads = 4;
  info.head_dim = 64;
  info.hidden_size = 256;
  info.vocab_size = 1000;
  info.max_context_tokens = 131072;
  info.num_pages = streams * (tokens / kPageTokens + 4);
  EngineOptions options;
  options.max_running = streams;
  std::atomic<int> open{streams};
  std::vector<std::unique_ptr<PreparedPrompt>> prompts;
  for (int i = 0; i < streams; ++i) {
    PromptShape shape;
    shape.seed = static_cast<uint64_t>(i) + 1;
    shape.max_output_tokens = tokens;
    prompts.push_back(MakePrompt(shape));
  }
  Engine engine(options, std::make_unique<NullExecutor>(info), Clock::Real());
  const absl::Duration before = ProcessCpu();
  for (auto& prompt : prompts) {
    Request request;
    request.tenant = "t";
    request.receive = Clock::Real().Monotonic();
    request.stream = std::make_shared<CountingStream>(open);
    const absl::StatusOr<RequestId> id = engine.Submit(std::move(request));
    VNSA_CHECK(id.ok()) << id.status();
    engine.Ready(*id, std::move(prompt));
  }
  while (open > 0) absl::SleepFor(absl::Milliseconds(5));
  const double used = absl::ToDoubleMicroseconds(ProcessCpu() - before);
  const double per_token = used / (static_cast<double>(streams) * tokens);
  std::printf(
      "engine overhead: %d streams, %d tokens each: %.2f us of CPU a token, both threads and "
      "their queues (limit %.0f us)\n",
      streams, tokens, per_token, kLimit);
  return per_token <= kLimit ? 0 : 1;
}

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "interference" && argc > 2) {
    return Interference(argv[2], argc > 3 ? std::atoi(argv[3]) : 32768);
  }
  if (what == "batch" && argc > 2) return Batch(argv[2]);
  if (what == "overhead") {
    return Overhead(argc > 2 ? std::atoi(argv[2]) : 64, argc > 3 ? std::atoi(argv[3]) : 2000);
  }
  std::fprintf(stderr,
               "usage: engine_bench interference CONFIG [PROMPT_TOKENS] | batch CONFIG | "
               "overhead [STREAMS [TOKENS]]\n");
  return 2;
}

}  // namespace
}  // namespace videonsa::bench

int main(int argc, char** argv) { return videonsa::bench::Main(argc, argv); }
