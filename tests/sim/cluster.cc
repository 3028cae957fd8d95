#include "tests/sim/cluster.h"

#include <chrono>
#include <cstring>
#include <map>
#include <queue>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/base/check.h"
#include "runtime/engine/warm_up.h"
#include "tests/sim/sim_executor.h"

namespace videonsa::sim {
namespace {

constexpr double kWarmUpSeconds = 0.3;  // as the server ships

/// The clock of the simulation; only the event loop moves it.
class SimClock : public Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch() + Monotonic(); }
  absl::Duration Monotonic() const override { return absl::Seconds(seconds); }
  double seconds = 0;
};

/// What the client of one request sees.
class SimStream : public AnswerStream {
 public:
  SimStream(const SimRequest& request, const SimClock& clock, ClassResult& result)
      : request_(request), clock_(clock), result_(result) {}

  void Accepted(RequestId, int) override {}
  void Progress(const char*, int64_t, int64_t) override {}
  void Prefilled(const PromptTokens&, int64_t cached_tokens, absl::Duration) override {
    cached_tokens_ = cached_tokens;
  }
  void Token(const SampledToken&) override {
    const double now = clock_.seconds;
    if (tokens_++ == 0) {
      first_token_ = now;
      result_.ttft.Record(now - request_.arrival);
      result_.longest_wait = std::max(result_.longest_wait, now - request_.arrival);
    } else {
      result_.gap.Record(now - last_token_);
      late_gaps_ += now - last_token_ > request_.gap_limit;
    }
    last_token_ = now;
  }
  void Finish(const absl::Status& status, GenerateResult) override {
    VNSA_CHECK(!finished_) << "ends twice";
    finished_ = true;
    ++result_.requests;
    if (!status.ok()) {
      VNSA_CHECK(status.code() == absl::StatusCode::kCancelled) << status;
      ++result_.gave_up;
      result_.longest_wait = std::max(result_.longest_wait, clock_.seconds - request_.arrival);
      return;
    }
    VNSA_CHECK_EQ(tokens_, request_.output_tokens);
    ++result_.answered;
    good_ = first_token_ - request_.arrival <= request_.ttft_limit && late_gaps_ * 20 <= tokens_;
    result_.good += good_;
  }

  bool finished() const { return finished_; }
  bool good() const { return good_; }
  bool has_token() const { return tokens_ > 0; }
  int64_t tokens() const { return tokens_; }
  int64_t cached_tokens() const { return cached_tokens_; }

 private:
  const SimRequest& request_;
  const SimClock& clock_;
  ClassResult& result_;
  double first_token_ = 0, last_token_ = 0;
  int64_t tokens_ = 0, late_gaps_ = 0, cached_tokens_ = 0;
  bool finished_ = false, good_ = false;
};

/// A visual that is ready and has no rows.
class NoPatches : public PatchSource {
 public:
  using PatchSource::PatchSource;
  void Begin() override {}
  PatchRows Take(int t_begin, int) override { return {t_begin, t_begin, nullptr, nullptr}; }
  void Close() override {}
  State state() const override {
    State state;
    state.t_ready = grid().t;
    return state;
  }
};

std::unique_ptr<PreparedPrompt> PromptOf(const SimRequest& request, size_t number) {
  auto prompt = std::make_unique<PreparedPrompt>();
  SequenceSpec& spec = prompt->spec;
  const PromptLayout& layout = request.layout;
  spec.token_ids.resize(layout.length());
  spec.vision_spans.push_back({PromptLayout::kTextBefore, layout.vision_tokens, 0});
  spec.visuals.push_back(std::make_shared<NoPatches>(PatchGrid{layout.vision_tokens / 64, 16, 16}));
  prompt->reopen = [grid = spec.visuals[0]->grid()] {
    return std::vector<std::shared_ptr<PatchSource>>{std::make_shared<NoPatches>(grid)};
  };
  spec.attention.semantics = AttentionSemantics::kCausalNsa;
  spec.attention.selected_blocks = 32;
  spec.attention.window_tokens = 512;
  spec.sampling.max_output_tokens = std::max(request.output_tokens, 256);
  spec.sampling.seed = number;
  PairForecast& forecast = prompt->forecast;
  for (int64_t row = kPageTokens; row < layout.length() + kPageTokens; row += kPageTokens) {
    forecast.cumulative.push_back(layout.PairsUpTo(std::min<int64_t>(row, layout.length())));
  }
  forecast.pairs.selected = forecast.cumulative.back();
  if (request.clip < 0) return prompt;
  // Pages before the question are the same for everybody who asks about the clip.
  std::mt19937_64 content(static_cast<uint64_t>(request.clip) * 1024 +
                          static_cast<uint64_t>(request.tenant) + 1);
  const auto next_key = [&] {
    Sha256Digest key;
    for (size_t at = 0; at < key.size(); at += sizeof(uint64_t)) {
      const uint64_t word = content();
      std::memcpy(key.data() + at, &word, sizeof(word));
    }
    return key;
  };
  spec.visual_keys.push_back(next_key());
  const int pages = (PromptLayout::kTextBefore + layout.vision_tokens) / kPageTokens;
  for (int page = 0; page < pages; ++page) prompt->page_keys.push_back(next_key());
  return prompt;
}

class Cluster {
 public:
  Cluster(const std::vector<SimRequest>& trace, const Policy& policy, int workers, uint64_t seed,
          SimResult& result)
      : trace_(trace),
        result_(result),
        core_(OptionsOf(trace, policy, workers, seed), H200Info(), clock_, nullptr) {
    for (int i = 0; i < workers; ++i) {
      workers_.push_back(std::make_unique<SimWorker>(trace, seed + i, i));
    }
    streams_.resize(trace.size());
    flags_.resize(trace.size());
  }

  void Run() {
    for (size_t i = 0; i < trace_.size(); ++i) At(trace_[i].arrival, Kind::kArrival, i);
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      CountPages(event.at);
      clock_.seconds = event.at;
      Handle(event);
      while (std::optional<WorkerJob> job = core_.NextJob()) Begin(*std::move(job));
    }
    core_.CheckInvariants();
    VNSA_CHECK_EQ(core_.num_open(), 0) << "requests that never ended";
    Summarize();
  }

 private:
  enum class Kind { kArrival, kReady, kPatience, kDone };
  struct Event {
    double at;
    uint64_t order;
    Kind kind;
    size_t number;  // request or worker
    bool operator<(const Event& other) const {
      return at != other.at ? at > other.at : order > other.order;
    }
  };
  struct SimWorker {
    SimWorker(const std::vector<SimRequest>& trace, uint64_t seed, int index)
        : executor(trace, seed), runner(&executor, index) {}
    SimExecutor executor;
    JobRunner runner;
    std::vector<WorkerEvent> reports;  // of the job in hand, delivered when it is done
    double busy = 0;
  };

  static EngineOptions OptionsOf(const std::vector<SimRequest>& trace, const Policy& policy,
                                 int workers, uint64_t seed) {
    EngineOptions options = policy.engine;
    options.num_workers = workers;
    SimExecutor executor(trace, seed);
    options.cost_samples = *MeasureCosts(
        executor, {.seconds = kWarmUpSeconds, .prefill_tokens = 8192, .vision_token_id = 0});
    return options;
  }

  void At(double seconds, Kind kind, size_t number) {
    events_.push({seconds, next_order_++, kind, number});
  }

  void Handle(const Event& event) {
    const size_t i = event.number;
    const RequestId id{i + 1};
    switch (event.kind) {
      case Kind::kArrival: {
        const SimRequest& request = trace_[i];
        streams_[i] = std::make_shared<SimStream>(
            request, clock_, result_.by_priority[static_cast<int>(request.priority)]);
        flags_[i] = std::make_shared<std::atomic<bool>>(false);
        Request engine;
        engine.id = id;
        engine.tenant = std::to_string(request.tenant);
        engine.priority = request.priority;
        engine.receive = clock_.Monotonic();
        engine.stream = streams_[i];
        engine.cancelled = flags_[i];
        core_.Handle(SubmitMessage{std::move(engine), 0});
        At(event.at + request.media_seconds, Kind::kReady, i);
        At(event.at + request.patience, Kind::kPatience, i);
        return;
      }
      case Kind::kReady:
        core_.Handle(ReadyMessage{id, PromptOf(trace_[i], i)});
        return;
      case Kind::kPatience:
        if (streams_[i]->has_token() || streams_[i]->finished()) return;
        flags_[i]->store(true, std::memory_order_release);
        core_.Handle(CancelMessage{id});
        return;
      case Kind::kDone: {
        last_end_ = event.at;
        std::vector<WorkerEvent> reports = std::exchange(workers_[i]->reports, {});
        for (WorkerEvent& report : reports) {
          std::visit([this](auto&& r) { core_.Handle(EngineMessage(std::move(r))); },
                     std::move(report));
        }
        return;
      }
    }
  }

  void Begin(WorkerJob job) {
    SimWorker& worker = *workers_[job.worker];
    const size_t index = static_cast<size_t>(job.worker);
    VNSA_CHECK(worker.reports.empty()) << "I9";
    ++result_.steps;
    double seconds = 0;
    worker.runner.Run(std::move(job), [&](WorkerEvent event) {
      if (const auto* done = std::get_if<StepDone>(&event)) {
        const StepResult& r = done->result;
        seconds = absl::ToDoubleSeconds(r.vision_time + r.prefill_time + r.decode_time);
      }
      worker.reports.push_back(std::move(event));
    });
    worker.busy += seconds;
    At(clock_.seconds + seconds, Kind::kDone, index);
  }

  // Pages that requests hold, integrated over time; looked at every 20 seconds.
  void CountPages(double until) {
    if (until < next_look_) return;
    next_look_ = until + 20;
    int64_t held = 0, capacity = 0;
    for (size_t i = 0; i < workers_.size(); ++i) {
      const AdmissionPolicy& admission = core_.admission(static_cast<int>(i));
      held += admission.pool().num_used() - admission.index().num_cached();
      capacity += admission.pool().capacity();
    }
    const double share = static_cast<double>(held) / static_cast<double>(capacity);
    result_.pages_peak = std::max(result_.pages_peak, share);
    if (until > trace_.back().arrival) return;
    pages_sum_ += share;
    ++pages_looks_;
  }

  void Summarize() {
    result_.seconds = last_end_ - trace_.front().arrival;
    result_.arrival_seconds = trace_.back().arrival - trace_.front().arrival;
    double busy = 0;
    for (const auto& worker : workers_) busy += worker->busy;
    result_.busy = busy / (result_.seconds * static_cast<double>(workers_.size()));
    result_.pages_mean = pages_looks_ == 0 ? 0 : pages_sum_ / pages_looks_;
    result_.good_per_second =
        static_cast<double>(result_.total(&ClassResult::good)) / result_.arrival_seconds;
    result_.preemptions = core_.Snapshot().preemptions;
    result_.cost_error = core_.Snapshot().cost->relative_error();
    std::map<int, std::pair<int64_t, int64_t>> tenants;  // good, all
    for (size_t i = 0; i < trace_.size(); ++i) {
      VNSA_CHECK(streams_[i]->finished()) << "request " << i << " never ended";
      auto& [good, all] = tenants[trace_[i].tenant];
      good += streams_[i]->good();
      ++all;
      result_.tokens += streams_[i]->tokens();
      result_.reused_tokens += streams_[i]->cached_tokens();
      result_.prompt_tokens += trace_[i].layout.length();
    }
    double sum = 0, squares = 0;
    for (const auto& [tenant, counts] : tenants) {
      const double share = static_cast<double>(counts.first) / static_cast<double>(counts.second);
      sum += share;
      squares += share * share;
    }
    result_.tenant_fairness =
        squares == 0 ? 0 : sum * sum / (static_cast<double>(tenants.size()) * squares);
  }

  const std::vector<SimRequest>& trace_;
  SimResult& result_;
  SimClock clock_;
  EngineCore core_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::vector<std::shared_ptr<SimStream>> streams_;
  std::vector<std::shared_ptr<std::atomic<bool>>> flags_;
  std::priority_queue<Event> events_;
  uint64_t next_order_ = 0;
  double next_look_ = 0, pages_sum_ = 0;
  double last_end_ = 0;  // of a step
  int64_t pages_looks_ = 0;
};

}  // namespace

bool SetOption(absl::string_view assignment, EngineOptions& options) {
  const std::pair<std::string, std::string> pair =
      absl::StrSplit(assignment, absl::MaxSplits('=', 1));
  double value = 0;
  if (!absl::SimpleAtod(pair.second, &value)) return false;
  const std::map<std::string, double*> numbers = {
      {"interactive_head_start", &options.order.interactive_head_start},
      {"standard_head_start", &options.order.standard_head_start},
      {"per_prefill_second", &options.order.per_prefill_second},
      {"max_setback", &options.order.max_setback},
      {"bind_within_steps", &options.bind_within_steps},
      {"step_seconds", &options.step.seconds},
      {"min_prefill_to_decode", &options.step.min_prefill_to_decode}};
  const std::map<std::string, int*> integers = {{"fair_every", &options.fair_every},
                                                {"max_bypasses", &options.max_bypasses},
                                                {"max_preemptions", &options.max_preemptions},
                                                {"prefill_tokens", &options.step.prefill_tokens}};
  if (const auto found = numbers.find(pair.first); found != numbers.end()) {
    *found->second = value;
    return true;
  }
  const auto found = integers.find(pair.first);
  if (found == integers.end()) return false;
  *found->second = static_cast<int>(value);
  return true;
}

std::vector<Policy> Policies(int workers) {
  constexpr double kNoLimit = 1e9;
  EngineOptions ours;
  ours.max_running = 256 * workers;
  ours.step.prefill_tokens = 8192;
  ours.step.seconds = 0.06;
  ours.step.min_prefill_to_decode = 1;
  EngineOptions first_come = ours;
  first_come.order = {.interactive_head_start = 0,
                      .standard_head_start = 0,
                      .per_prefill_second = 0,
                      .max_setback = 0};
  first_come.fair_every = 0;
  first_come.bind_within_steps = kNoLimit;
  first_come.max_bypasses = 0;
  first_come.max_preemptions = 0;
  first_come.step.seconds = kNoLimit;
  first_come.step.prefill_tokens = 131072;  // the longest prompt
  EngineOptions token_budget = first_come;
  token_budget.step.prefill_tokens = 2048;
  return {{"first-come", first_come}, {"token-budget", token_budget}, {"ours", ours}};
}

SimResult Simulate(const std::vector<SimRequest>& trace, const std::string& trace_name,
                   const Policy& policy, int workers, uint64_t seed) {
  SimResult result;
  result.policy = policy.name;
  result.trace = trace_name;
  const auto begin = std::chrono::steady_clock::now();
  Cluster(trace, policy, workers, seed, result).Run();
  result.real_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}  // namespace videonsa::sim
