// Drives the engine's core with random event sequences and checks the invariants of
// runtime/README.md and that every answer equals the one the same request gives alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "runtime/engine/engine_core.h"
#include "runtime/step/patch_stream.h"
#include "tests/support/engine_fixtures.h"
#include "tests/support/fake_executor.h"

namespace videonsa {
namespace {

struct Streams {
  std::shared_ptr<PatchStream> source;
  std::shared_ptr<bool> begun;
  int pushed = 0;                                 // temporal patches
  std::vector<std::shared_ptr<PatchStream>> all;  // one a stay
};

struct Client {
  RequestId id;
  std::shared_ptr<RecordingStream> stream;
  std::shared_ptr<std::atomic<bool>> cancelled;
  PromptShape shape;
  std::shared_ptr<Streams> streams;  // of a clip that is decoded beside the model
  Priority priority = Priority::kStandard;
  bool ready = false;
  bool disturbed = false;  // cancelled, stopped, failed or with a deadline
};

class RandomRun {
 public:
  RandomRun(uint64_t seed, int depth) : random_(seed), depth_(depth), fails_(seed % 4 == 3) {
    fake_.info = SmallExecutorInfo();
    fake_.clock = &clock_;
    fake_.refuse = [](const SequenceSpec& spec) { return spec.token_ids.front() % 53 == 0; };
    options_.num_workers = 1 + static_cast<int>(seed % 3);
    options_.restarts = seed % 8 == 3;
    workers_.resize(options_.num_workers);
    for (FakeWorker& worker : workers_) Open(worker);
    options_.max_running = 12;
    options_.max_waiting = 1000;
    options_.plan_depth = depth;
    options_.step.seconds = 0.003;
    options_.step.prefill_tokens = 256;
    options_.hidden_bytes = 600 * 256;
    options_.pinned_share = 0.4;
    options_.tenant_pinned_share = 0.3;
    for (std::shared_ptr<SessionPin>& pin : pins_) pin = MakePin();
    core_ = std::make_unique<EngineCore>(options_, fake_.info, clock_, nullptr);
  }

  void Run(int events) {
    for (int event = 0; event < events; ++event) {
      OneEvent();
      if (event % 16 == 0) core_->CheckInvariants();
      if (::testing::Test::HasFatalFailure()) return;
    }
    Finish();
  }

  int answered() const { return answered_; }
  int reused() const { return reused_; }
  int lost() const { return lost_; }
  int restarts() const { return restarts_; }
  int streamed() const { return streamed_; }
  int64_t preempted() const { return core_->Snapshot().preemptions; }
  int resumed() const { return resumed_; }
  int most_pinned() const { return most_pinned_; }

 private:
  struct FakeWorker {
    std::unique_ptr<FakeExecutor> executor;
    std::unique_ptr<JobRunner> runner;
    std::deque<WorkerJob> jobs;
    int epoch = 0;
    bool failed = false;
  };

  void Open(FakeWorker& worker) {
    fake_.fail_at_run = fails_ ? 300 + Draw(1000) : 0;
    worker.runner.reset();
    worker.executor = std::make_unique<FakeExecutor>(fake_);
    worker.runner = std::make_unique<JobRunner>(worker.executor.get(),
                                                static_cast<int>(&worker - workers_.data()));
    worker.failed = false;
  }

  int Draw(int bound) { return static_cast<int>(random_() % static_cast<uint64_t>(bound)); }

  void OneEvent() {
    const int kind = Draw(100);
    if (kind < 12 && open_.size() < 60) {
      Submit();
    } else if (kind < 30) {
      MakeReady();
    } else if (kind < 32) {
      Disturb();
    } else if (kind < 34) {
      PushSome();
    } else if (kind < 37) {
      clock_.Advance(absl::Microseconds(Draw(3000)));
      core_->Handle(TickMessage{});
    } else if (kind < 39) {
      RestartOne();
      if (Draw(8) == 0) EndSession(Draw(kPins));
    } else if (kind < 68) {
      Submit1Job();
    } else {
      DoJob();
    }
    Collect();
  }

  void Submit() {
    Client client;
    client.id = RequestId{next_id_++};
    client.stream = std::make_shared<RecordingStream>();
    client.cancelled = std::make_shared<std::atomic<bool>>(false);
    client.shape.seed = random_();
    client.shape.text_before = 1 + Draw(200);
    client.shape.frames = Draw(3) == 0 ? 1 + Draw(40) : 0;
    client.shape.text_after = 1 + Draw(Draw(8) == 0 ? 1500 : 100);
    client.shape.max_output_tokens = 1 + Draw(40);
    client.shape.semantics = std::array{AttentionSemantics::kDense, AttentionSemantics::kCausalNsa,
                                        AttentionSemantics::kReleasedNsa}[Draw(3)];
    client.shape.ignore_eos = Draw(2) == 0;
    client.shape.tenant = Draw(2) == 0 ? "a" : "b";
    if (Draw(2) == 0) {
      client.shape.prefix_seed = 1 + Draw(3);
      client.shape.prefix_tokens = 64 * (1 + Draw(5));
      client.shape.text_before = 150;
    }
    if (client.shape.frames > 0 && Draw(2) == 0) MakeStream(client);
    Request request;
    request.id = client.id;
    request.tenant = client.shape.tenant;
    request.priority = client.priority = static_cast<Priority>(Draw(3));
    request.receive = clock_.Monotonic();
    if (Draw(10) == 0) {
      request.deadline = clock_.Monotonic() + absl::Microseconds(Draw(60000));
      client.disturbed = true;
    }
    request.stream = client.stream;
    request.cancelled = client.cancelled;
    if (Draw(3) == 0) {
      request.pin = pins_[2 * Draw(kPins / 2) + (client.shape.tenant == "b" ? 1 : 0)];
    }
    core_->Handle(SubmitMessage{std::move(request), 0});
    open_.push_back(client);
  }

  // Sessions of even number are one tenant's, the others the other's.
  static constexpr int kPins = 8;
  std::shared_ptr<SessionPin> MakePin() {
    return std::make_shared<SessionPin>(SessionId{++next_pin_});
  }
  void EndSession(int i) {
    pins_[i]->closed = true;
    core_->Handle(UnpinMessage{pins_[i]->id});
    EXPECT_EQ(pins_[i]->pages.load(), 0);
    most_pinned_ = std::max(most_pinned_, core_->Snapshot().pages_pinned);
    pins_[i] = MakePin();
  }

  // News of the sources come with later events, several as one, as through the real inbox. One in
  // three cannot be had again: its sequence keeps its place.
  void MakeStream(Client& client) {
    client.streams = std::make_shared<Streams>();
    const auto open = [this, id = client.id, frames = client.shape.frames,
                       streams = client.streams] {
      auto begun = std::make_shared<bool>(false);
      PatchStream::Hooks hooks;
      hooks.begin = [begun] { *begun = true; };
      hooks.changed = [this, id] { media_news_.insert(id); };
      streams->begun = begun;
      streams->pushed = 0;
      streams->source = std::make_shared<PatchStream>(PatchGrid{frames, 4, 4}, int64_t{1} << 40,
                                                      std::move(hooks));
      streams->all.push_back(streams->source);
      return std::vector<std::shared_ptr<PatchSource>>{streams->source};
    };
    client.shape.source = open().front();
    if (Draw(3) > 0) client.shape.reopen = open;
  }

  void PushSome() {
    for (Client& client : open_) {
      if (client.streams == nullptr || !*client.streams->begun) continue;
      Streams& streams = *client.streams;
      if (Draw(60) == 0) {
        client.disturbed = true;
        streams.source->Finish(absl::UnavailableError("the decoder died"));
        continue;
      }
      const int left = client.shape.frames - streams.pushed;
      const int count = std::min(left, Draw(12));
      if (count > 0) {
        auto piece = std::make_shared<PatchBatch>();
        piece->grid = {count, 4, 4};
        piece->rows.resize(static_cast<size_t>(piece->grid.num_patches()) * kPatchDim);
        // Refused if the sequence has ended.
        (void)streams.source->Push(streams.source->grid(), streams.pushed, piece);
        streams.pushed += count;
      } else if (left == 0) {
        streams.source->Finish(absl::OkStatus());
      }
    }
    TellNews();
  }

  void TellNews() {
    const std::set<RequestId> news = std::exchange(media_news_, {});
    for (const RequestId id : news) core_->Handle(MediaMessage{id});
  }

  void MakeReady() {
    for (Client& client : open_) {
      if (client.ready) continue;
      client.ready = true;
      if (Draw(20) == 0) {
        client.disturbed = true;
        core_->Handle(FailMessage{client.id, absl::InvalidArgumentError("bad clip")});
      } else {
        core_->Handle(ReadyMessage{client.id, MakePrompt(client.shape)});
      }
      return;
    }
  }

  void Disturb() {
    if (open_.empty()) return;
    Client& client = open_[Draw(static_cast<int>(open_.size()))];
    client.disturbed = true;
    if (Draw(2) == 0) {
      client.cancelled->store(true);  // as OpenRequests does before it tells the engine
      core_->Handle(CancelMessage{client.id});
    } else {
      core_->Handle(StopMessage{client.id});
    }
  }

  void Submit1Job() {
    std::optional<WorkerJob> job = core_->NextJob();
    if (!job) return;
    FakeWorker& worker = workers_[job->worker];
    ASSERT_LT(static_cast<int>(worker.jobs.size()), depth_);
    ASSERT_FALSE(worker.failed);
    ASSERT_EQ(job->epoch, worker.epoch);
    CheckBudget(job->plan);
    CheckStarvation(*job);
    CheckStays(*job);
    worker.jobs.push_back(*std::move(job));
  }

  void CheckBudget(const StepPlan& plan) {
    int tokens = 0;
    for (const PrefillSlice& slice : plan.prefill) {
      if (slice.layer_end - slice.layer_begin == 4) tokens += slice.token_end - slice.token_begin;
    }
    // Layer-wise slices with all layers count as well here, hence the largest prompt.
    ASSERT_LE(tokens, options_.step.prefill_tokens + 1900);
    ASSERT_LE(static_cast<int>(plan.decode.size() + plan.prefill.size()), options_.max_running);
  }

  // Every admitted sequence takes part in a step again before the others had their turns, at
  // weights of at most 4 to 1, twice over, in the steps that go by what was received.
  void CheckStarvation(const WorkerJob& job) {
    const int bound = 2 * 4 * options_.max_running * options_.fair_every;
    std::map<uint64_t, int>& idle_steps = idle_steps_[job.worker];
    for (const SequenceSpec& spec : job.add) idle_steps[spec.id.value] = 0;
    for (const SequenceId id : job.release) idle_steps.erase(id.value);
    // Who waits for patches is not kept waiting by others.
    for (const Client& client : open_) {
      const bool waits = client.streams != nullptr &&
                         client.streams->source->state().t_ready < client.shape.frames;
      if (waits) idle_steps.erase(client.id.value);
    }
    for (auto& [id, steps] : idle_steps) ++steps;
    for (const VisionSlice& slice : job.plan.vision) idle_steps[slice.sequence.value] = 0;
    for (const PrefillSlice& slice : job.plan.prefill) idle_steps[slice.sequence.value] = 0;
    for (const SequenceId id : job.plan.decode) idle_steps[id.value] = 0;
    for (const ReplaySlice& slice : job.plan.replay) idle_steps[slice.sequence.value] = 0;
    for (const auto& [id, steps] : idle_steps) ASSERT_LE(steps, bound) << "sequence " << id;
  }

  // Nobody of the highest class leaves, nobody leaves twice without a new token or too often, and
  // who comes back has what its client was told (I15, I16).
  void CheckStays(const WorkerJob& job) {
    for (const SequenceSpec& spec : job.add) {
      std::vector<size_t>& stays = stays_[spec.id.value];
      const size_t tokens = spec.answer_ids.size();
      for (const Client& client : open_) {
        if (client.id.value != spec.id.value) continue;
        ASSERT_EQ(spec.answer_ids, client.stream->tokens());
        ASSERT_TRUE(stays.empty() || client.priority != Priority::kInteractive);
      }
      ASSERT_TRUE(!stays.empty() || tokens == 0);
      ASSERT_TRUE(stays.size() < 2 || tokens > stays.back()) << "request " << spec.id;
      stays.push_back(tokens);
      ASSERT_LE(static_cast<int>(stays.size()), 1 + options_.max_preemptions);
    }
  }

  void DoJob() {
    FakeWorker& worker = workers_[Draw(options_.num_workers)];
    if (worker.jobs.empty()) return;
    WorkerJob job = std::move(worker.jobs.front());
    worker.jobs.pop_front();
    const bool alive = worker.runner->Run(std::move(job), [this](WorkerEvent event) {
      std::visit([this](auto&& e) { core_->Handle(EngineMessage(std::move(e))); },
                 std::move(event));
    });
    if (alive) return;
    ++lost_;
    ++worker.epoch;
    worker.failed = true;
    worker.jobs.clear();
    idle_steps_[&worker - workers_.data()].clear();
  }

  // A failed worker's device comes back after a while.
  void RestartOne() {
    if (!options_.restarts) return;
    FakeWorker& worker = workers_[Draw(options_.num_workers)];
    if (!worker.failed) return;
    Open(worker);
    ++restarts_;
    core_->Handle(WorkerRestarted{absl::OkStatus(), static_cast<int>(&worker - workers_.data())});
  }

  void Collect() {
    std::erase_if(open_, [this](Client& client) {
      if (!client.stream->finished()) return false;
      Check(client);
      return true;
    });
  }

  void Check(const Client& client) {
    EXPECT_EQ(client.stream->num_finishes(), 1);
    const std::vector<int32_t> got = client.stream->tokens();
    if (client.streams != nullptr) {
      for (const auto& source : client.streams->all) {
        EXPECT_TRUE(source->closed() || !*client.streams->begun);
        EXPECT_EQ(source->buffered_bytes(), 0);
      }
      streamed_ += !client.disturbed && client.stream->status().ok();
    }
    const std::unique_ptr<PreparedPrompt> prompt = MakePrompt(client.shape);
    const std::vector<int32_t> alone = FakeExecutor::AnswerAlone(prompt->spec, fake_.info);
    ASSERT_LE(got.size(), alone.size());
    ASSERT_TRUE(std::equal(got.begin(), got.end(), alone.begin())) << "request " << client.id;
    const absl::Status status = client.stream->status();
    if (client.disturbed) return;
    if (status.code() == absl::StatusCode::kUnavailable) {
      EXPECT_GT(lost_, 0);  // only a failed worker ends what nobody disturbed
      return;
    }
    if (status.code() == absl::StatusCode::kResourceExhausted) {
      // Layer-wise rows that can never fit.
      EXPECT_EQ(client.shape.semantics, AttentionSemantics::kReleasedNsa);
      EXPECT_GT(prompt->spec.token_ids.size(), 600u);
      return;
    }
    if (prompt->spec.token_ids.front() % 53 == 0) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      return;
    }
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(got, alone) << "request " << client.id;
    ++answered_;
    const GenerateResult result = client.stream->result();
    EXPECT_TRUE(result.timing.preemptions > 0 || result.timing.preempted == absl::ZeroDuration());
    if (result.timing.preemptions > 0) {
      ++resumed_;
      EXPECT_NE(client.priority, Priority::kInteractive);
      EXPECT_TRUE(client.streams == nullptr || client.shape.reopen != nullptr);
    }
    EXPECT_EQ(result.usage.output_tokens, static_cast<int64_t>(alone.size()));
    if (result.usage.cached_prompt_tokens > 0) {
      ++reused_;
      EXPECT_EQ(result.kv_reuse, KvReuse::kExact);
      EXPECT_NE(client.shape.semantics, AttentionSemantics::kReleasedNsa);
    }
  }

  // Lets everything end, then looks for what was left behind.
  void Finish() {
    for (int round = 0; round < 200000 && (!open_.empty() || HasJobs()); ++round) {
      MakeReady();
      RestartOne();
      PushSome();
      Submit1Job();
      DoJob();
      Collect();
    }
    EXPECT_TRUE(open_.empty()) << open_.size() << " requests never ended";
    for (int i = 0; i < kPins; ++i) EndSession(i);
    for (int round = 0; round < 1000; ++round) {  // the last releases
      Submit1Job();
      DoJob();
    }
    core_->CheckInvariants();
    EXPECT_EQ(core_->num_open(), 0);
    for (int i = 0; i < options_.num_workers; ++i) {
      if (!workers_[i].failed) {
        EXPECT_EQ(workers_[i].executor->num_sequences(), 0);
      }
      const AdmissionPolicy& admission = core_->admission(i);
      EXPECT_EQ(admission.pool().num_used(), admission.index().size());
      EXPECT_EQ(admission.hidden().used(), 0);
    }
    EXPECT_NEAR(core_->Snapshot().backlog_seconds, 0, 1e-6);
  }

  bool HasJobs() const {
    return std::any_of(workers_.begin(), workers_.end(), [](auto& w) { return !w.jobs.empty(); });
  }

  std::mt19937_64 random_;
  const int depth_;
  const bool fails_;
  FakeClock clock_;
  EngineOptions options_;
  FakeExecutorOptions fake_;
  std::vector<FakeWorker> workers_;
  std::unique_ptr<EngineCore> core_;
  std::vector<Client> open_;
  std::map<int, std::map<uint64_t, int>> idle_steps_;  // by worker and sequence
  uint64_t next_id_ = 1;
  std::array<std::shared_ptr<SessionPin>, kPins> pins_;
  uint64_t next_pin_ = 0;
  int most_pinned_ = 0;
  int lost_ = 0;  // failures of workers
  int restarts_ = 0;
  int answered_ = 0;
  int reused_ = 0;
  int streamed_ = 0;
  int resumed_ = 0;                                // undisturbed answers that were preempted
  std::map<uint64_t, std::vector<size_t>> stays_;  // by request: tokens when each stay began
  std::set<RequestId> media_news_;
};

TEST(EngineRandom, InvariantsHoldAndAnswersAreThoseGivenAlone) {
  // VIDEONSA_TEST_SEED runs one seed again; VIDEONSA_TEST_EVENTS is the length of every run.
  const char* only = std::getenv("VIDEONSA_TEST_SEED");
  const char* length = std::getenv("VIDEONSA_TEST_EVENTS");
  const int events = length != nullptr ? std::atoi(length) : VIDEONSA_RANDOM_EVENTS;
  const uint64_t first = only != nullptr ? std::strtoull(only, nullptr, 10) : 1;
  const uint64_t last = only != nullptr ? first : 24;
  int answered = 0, reused = 0, lost = 0, restarts = 0, streamed = 0, most_pinned = 0, resumed = 0;
  int64_t preempted = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomRun run(seed, 1 + static_cast<int>(seed % 2));
    run.Run(events);
    answered += run.answered();
    reused += run.reused();
    lost += run.lost();
    restarts += run.restarts();
    streamed += run.streamed();
    preempted += run.preempted();
    resumed += run.resumed();
    most_pinned = std::max(most_pinned, run.most_pinned());
    if (HasFailure()) {
      std::printf("failed with VIDEONSA_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
      return;
    }
  }
  std::printf(
      "seeds %llu..%llu: %d events each, %d undisturbed answers, %d with reused pages, %d with "
      "streamed clips, %lld preemptions and %d of the answers among them, %d workers failed, %d "
      "restarted, up to %d pages pinned\n",
      static_cast<unsigned long long>(first), static_cast<unsigned long long>(last), events,
      answered, reused, streamed, static_cast<long long>(preempted), resumed, lost, restarts,
      most_pinned);
  EXPECT_GT(answered, 100);
  EXPECT_GT(reused, 10);
  if (only == nullptr) {
    EXPECT_GT(lost, 3.0 * events / 50'000);
    EXPECT_GT(restarts, 10.0 * events / 50'000);
  }
  EXPECT_GT(streamed, 20);
  EXPECT_GT(preempted, 100);
  EXPECT_GT(resumed, 50);
  EXPECT_GT(most_pinned, 3);
}

}  // namespace
}  // namespace videonsa
