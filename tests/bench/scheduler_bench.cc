// Time of one engine step (take a result, admit, plan, hand out a job) against the number of
// running and waiting sequences, without a model: what the engine costs a device per step.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "runtime/engine/engine_core.h"
#include "tests/support/engine_fixtures.h"

namespace videonsa {
namespace {

class NullStream : public AnswerStream {
 public:
  void Accepted(RequestId, int) override {}
  void Progress(const char*, int64_t, int64_t) override {}
  void Prefilled(const PromptTokens&, int64_t, absl::Duration) override {}
  void Token(const SampledToken&) override {}
  void Finish(const absl::Status&, GenerateResult) override {}
};

ExecutorInfo Info(int running) {
  ExecutorInfo info;
  info.num_layers = 28;
  info.num_q_heads = 28;
  info.num_kv_heads = 4;
  info.head_dim = 128;
  info.hidden_size = 3584;
  info.vocab_size = 152000;
  info.max_context_tokens = 131072;
  info.num_pages = running * 12;
  return info;
}

// What a worker would report for the job: every decode row and finished prompt gives a token, unless
// the sequence comes back with an answer so far. `prompt_tokens` by request.
StepDone Result(const WorkerJob& job, std::vector<int>& prompt_tokens) {
  for (const SequenceSpec& spec : job.add) {
    if (!spec.answer_ids.empty()) prompt_tokens[spec.id.value] = -1;
  }
  StepDone done;
  done.result.step = job.plan.step;
  done.result.decode_time = absl::Milliseconds(10);
  done.result.prefill_time = absl::Milliseconds(20);
  for (const SequenceId id : job.plan.decode) done.result.tokens.push_back({.sequence = id});
  for (const PrefillSlice& slice : job.plan.prefill) {
    if (slice.token_end == prompt_tokens[slice.sequence.value]) {
      done.result.tokens.push_back({.sequence = slice.sequence});
    }
  }
  return done;
}

struct Measured {
  double median_us = 0;
  double p99_us = 0;
};

Measured Measure(int running, int waiting, int tenants) {
  FakeClock clock;
  EngineOptions options;
  options.max_running = running;
  options.max_waiting = waiting + running;
  EngineCore core(options, Info(running), clock, nullptr);
  const auto stream = std::make_shared<NullStream>();
  const int requests = running + waiting + running;  // the last ones replace those that end
  std::vector<int> prompt_tokens(requests + 1);
  for (int id = 1; id <= requests; ++id) {
    PromptShape shape;
    shape.seed = static_cast<uint64_t>(id);
    shape.text_after = 100 + id % 300;
    shape.max_output_tokens = 100 + id % 200;
    Request request;
    request.id = RequestId{static_cast<uint64_t>(id)};
    request.tenant = std::to_string(id % tenants);
    request.priority = static_cast<Priority>(id % 3);
    request.receive = clock.Monotonic();
    request.deadline = absl::Hours(10);
    request.stream = stream;
    request.cancelled = std::make_shared<std::atomic<bool>>(false);
    prompt_tokens[id] = shape.text_before + shape.text_after;
    core.Handle(SubmitMessage{std::move(request), 0});
    core.Handle(ReadyMessage{RequestId{static_cast<uint64_t>(id)}, MakePrompt(shape)});
    clock.Advance(absl::Milliseconds(1));
  }
  std::vector<double> times;
  for (int step = 0; step < 1500; ++step) {
    using SteadyClock = std::chrono::steady_clock;
    const auto begin = SteadyClock::now();
    std::optional<WorkerJob> job = core.NextJob();
    const auto planned = SteadyClock::now();
    if (!job) break;
    SequencesReleased released;
    for (const SequenceId id : job->release) released.accounts.push_back({id, {}});
    StepDone done = Result(*job, prompt_tokens);
    const auto resumed = SteadyClock::now();
    if (!released.accounts.empty()) core.Handle(std::move(released));
    core.Handle(std::move(done));
    const auto end = SteadyClock::now();
    clock.Advance(absl::Milliseconds(30));
    if (core.Snapshot().waiting < waiting / 2) break;
    const std::chrono::duration<double, std::micro> took = (planned - begin) + (end - resumed);
    if (step >= 2 * running) times.push_back(took.count());  // past the first fill
  }
  if (times.empty()) return {};
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[times.size() * 99 / 100]};
}

}  // namespace
}  // namespace videonsa

int main() {
  std::printf("%8s %8s %8s %12s %12s\n", "running", "waiting", "tenants", "median us", "p99 us");
  for (const auto& [running, waiting, tenants] : {std::tuple{16, 100, 4},
                                                  {64, 1000, 16},
                                                  {256, 10000, 1},
                                                  {256, 10000, 100},
                                                  {256, 10000, 1000}}) {
    const videonsa::Measured m = videonsa::Measure(running, waiting, tenants);
    std::printf("%8d %8d %8d %12.1f %12.1f\n", running, waiting, tenants, m.median_us, m.p99_us);
  }
  return 0;
}
