// Several workers behind one engine: who gets what, and what a failure takes down.
#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/notification.h"
#include "runtime/base/error.h"
#include "runtime/engine/engine.h"
#include "tests/support/engine_fixtures.h"
#include "tests/support/fake_executor.h"

namespace videonsa {
namespace {

PromptShape Answer(int tokens, uint64_t seed = 1) {
  PromptShape shape;
  shape.seed = seed;
  shape.max_output_tokens = tokens;
  shape.ignore_eos = true;
  return shape;
}

class WorkersTest : public ::testing::Test {
 protected:
  WorkersTest() {
    fake_.info = SmallExecutorInfo();
    options_.num_workers = 2;
  }

  void Start() {
    core_ = std::make_unique<EngineCore>(options_, fake_.info, clock_, nullptr, metrics_);
    for (int i = 0; i < options_.num_workers; ++i) {
      executors_.push_back(std::make_unique<FakeExecutor>(fake_));
      runners_.push_back(std::make_unique<JobRunner>(executors_[i].get(), i));
    }
  }

  std::shared_ptr<RecordingStream> Ask(uint64_t id, const PromptShape& shape) {
    auto stream = std::make_shared<RecordingStream>();
    Request request;
    request.id = RequestId{id};
    request.tenant = "t";
    request.receive = clock_.Monotonic();
    request.stream = stream;
    request.cancelled = std::make_shared<std::atomic<bool>>(false);
    core_->Handle(SubmitMessage{std::move(request), 0});
    core_->Handle(ReadyMessage{RequestId{id}, MakePrompt(shape)});
    return stream;
  }

  // Hands out all jobs there are and does them; returns who was added where.
  std::map<uint64_t, int> Round() {
    std::vector<WorkerJob> jobs;
    while (std::optional<WorkerJob> job = core_->NextJob()) jobs.push_back(*std::move(job));
    std::map<uint64_t, int> added;
    for (WorkerJob& job : jobs) {
      for (const SequenceSpec& spec : job.add) added[spec.id.value] = job.worker;
      const int worker = job.worker;
      runners_[worker]->Run(std::move(job), [this, worker](WorkerEvent event) {
        if (auto* done = std::get_if<StepDone>(&event)) {
          done->result.device.weight_bytes = 100 + worker;
          done->result.device.kv_bytes = 200 + worker;
        }
        std::visit([this](auto&& e) { core_->Handle(EngineMessage(std::move(e))); },
                   std::move(event));
      });
    }
    core_->CheckInvariants();
    return added;
  }

  FakeClock clock_;
  EngineOptions options_;
  FakeExecutorOptions fake_;
  EngineMetrics metrics_;
  std::vector<std::unique_ptr<FakeExecutor>> executors_;
  std::vector<std::unique_ptr<JobRunner>> runners_;
  std::unique_ptr<EngineCore> core_;
};

TEST_F(WorkersTest, LoadIsSpread) {
  Start();
  Ask(1, Answer(50, 1));
  Ask(2, Answer(50, 2));
  const std::map<uint64_t, int> added = Round();
  ASSERT_EQ(added.size(), 2u);
  EXPECT_NE(added.at(1), added.at(2));
}

TEST_F(WorkersTest, MemoryIsShownOfEveryWorkersGpu) {
  MetricsRegistry registry;
  metrics_ = EngineMetrics::Create(registry, {4, 6});
  fake_.info.gpu = 4;
  Start();
  Ask(1, Answer(50, 1));
  Ask(2, Answer(50, 2));
  ASSERT_EQ(Round().size(), 2u);
  const std::string text = registry.Text();
  for (const char* line : {"{device=\"4\",pool=\"weights\",worker=\"0\"} 100\n",
                           "{device=\"4\",pool=\"kv\",worker=\"0\"} 200\n",
                           "{device=\"6\",pool=\"weights\",worker=\"1\"} 101\n",
                           "{device=\"6\",pool=\"kv\",worker=\"1\"} 201\n"}) {
    EXPECT_NE(text.find(std::string("videonsa_gpu_memory_bytes") + line), std::string::npos)
        << line;
  }
}

TEST_F(WorkersTest, TheWorkerThatHoldsThePagesIsPreferred) {
  Start();
  PromptShape shape = Answer(3);
  shape.text_after = 1000;
  const auto other = Ask(1, Answer(3, 9));  // takes worker 0
  const auto first = Ask(2, shape);
  const std::map<uint64_t, int> added = Round();
  while (!first->finished() || !other->finished()) Round();
  const auto again = Ask(3, shape);
  EXPECT_EQ(Round().at(3), added.at(2));
  while (!again->finished()) Round();
  EXPECT_GT(again->cached_tokens(), 900);
  EXPECT_EQ(again->tokens(), first->tokens());
}

TEST_F(WorkersTest, AFailedWorkerTakesDownOnlyItsOwn) {
  options_.max_running = 4;  // two a worker
  options_.restarts = true;
  Start();
  std::vector<std::shared_ptr<RecordingStream>> streams;
  for (uint64_t id = 1; id <= 6; ++id) streams.push_back(Ask(id, Answer(30, id)));
  std::map<uint64_t, int> added = Round();
  ASSERT_EQ(added.size(), 4u);
  Round();
  core_->Handle(WorkerFailed{absl::UnavailableError("gone"), 0});
  core_->CheckInvariants();
  EXPECT_EQ(core_->Snapshot().workers_serving, 1);
  for (uint64_t id = 1; id <= 6; ++id) {
    const bool down = added.contains(id) && added[id] == 0;
    EXPECT_EQ(streams[id - 1]->finished(), down) << id;
    if (down) {
      EXPECT_EQ(GetErrorInfo(streams[id - 1]->status())->reason, "DEVICE_LOST");
      EXPECT_TRUE(GetErrorInfo(streams[id - 1]->status())->retry_after.has_value());
    }
  }
  // Its memory is new when it is back; those that waited use it.
  executors_[0] = std::make_unique<FakeExecutor>(fake_);
  runners_[0] = std::make_unique<JobRunner>(executors_[0].get(), 0);
  core_->Handle(WorkerRestarted{absl::OkStatus(), 0});
  EXPECT_EQ(core_->Snapshot().workers_serving, 2);
  added = Round();
  EXPECT_EQ(added.size(), 2u);
  for (const auto& [id, worker] : added) EXPECT_EQ(worker, 0);
  for (int round = 0; round < 100; ++round) Round();
  int ok = 0;
  for (const auto& stream : streams) ok += stream->finished() && stream->status().ok();
  EXPECT_EQ(ok, 4);
  EXPECT_EQ(core_->num_open(), 0);
}

TEST_F(WorkersTest, TheLastWorkerLostEndsEverything) {
  options_.max_running = 2;
  Start();
  std::vector<std::shared_ptr<RecordingStream>> streams;
  for (uint64_t id = 1; id <= 4; ++id) streams.push_back(Ask(id, Answer(30, id)));
  Round();
  core_->Handle(WorkerFailed{absl::UnavailableError("gone"), 1});
  EXPECT_TRUE(core_->Snapshot().failure.ok());
  core_->Handle(WorkerFailed{absl::UnavailableError("gone"), 0});
  EXPECT_FALSE(core_->Snapshot().failure.ok());
  for (const auto& stream : streams) {
    ASSERT_TRUE(stream->finished());
    EXPECT_EQ(stream->status().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(core_->num_open(), 0);
}

std::vector<std::unique_ptr<Executor>> Two(const FakeExecutorOptions& a,
                                           const FakeExecutorOptions& b) {
  std::vector<std::unique_ptr<Executor>> executors;
  executors.push_back(std::make_unique<FakeExecutor>(a));
  executors.push_back(std::make_unique<FakeExecutor>(b));
  return executors;
}

std::pair<absl::Status, std::shared_ptr<RecordingStream>> AskEngine(Engine& engine,
                                                                    const PromptShape& shape) {
  auto stream = std::make_shared<RecordingStream>();
  Request request;
  request.tenant = "t";
  request.receive = Clock::Real().Monotonic();
  request.stream = stream;
  const absl::StatusOr<RequestId> id = engine.Submit(std::move(request));
  if (id.ok()) engine.Ready(*id, MakePrompt(shape));
  return {id.status(), stream};
}

TEST(EngineWorkers, AFailedWorkerIsRestartedBesideTheOthers) {
  FakeExecutorOptions good;
  good.info = SmallExecutorInfo();
  FakeExecutorOptions bad = good;
  bad.fail_at_run = 5;
  absl::Notification restarting, go_on;
  std::atomic<int> restarts{0};
  Engine engine(EngineOptions{}, Two(bad, good), Clock::Real(), {}, [&](int worker) {
    EXPECT_EQ(worker, 0);
    ++restarts;
    restarting.Notify();
    go_on.WaitForNotification();
    return absl::StatusOr<std::unique_ptr<Executor>>(std::make_unique<FakeExecutor>(good));
  });
  const auto [status, first] = AskEngine(engine, Answer(200, 1));
  ASSERT_TRUE(status.ok());
  first->AwaitFinish();  // on worker 0, where nothing else ran
  EXPECT_EQ(GetErrorInfo(first->status())->reason, "DEVICE_LOST");
  restarting.WaitForNotification();
  EXPECT_EQ(engine.Snapshot().workers_serving, 1);
  EXPECT_TRUE(engine.Snapshot().failure.ok());
  const auto [second_status, second] = AskEngine(engine, Answer(200, 2));
  ASSERT_TRUE(second_status.ok());
  second->AwaitFinish();  // the other worker serves meanwhile
  EXPECT_TRUE(second->status().ok()) << second->status();
  go_on.Notify();
  while (engine.Snapshot().workers_serving < 2) std::this_thread::yield();
  const auto [third_status, third] = AskEngine(engine, Answer(200, 3));
  ASSERT_TRUE(third_status.ok());
  third->AwaitFinish();
  EXPECT_TRUE(third->status().ok());
  EXPECT_EQ(restarts, 1);
}

TEST(EngineWorkers, WhileNoWorkerServesNobodyIsLetInAndWaitersWait) {
  FakeExecutorOptions bad;
  bad.info = SmallExecutorInfo();
  bad.fail_at_run = 5;
  FakeExecutorOptions good = bad;
  good.fail_at_run = 0;
  absl::Notification restarting, go_on;
  std::vector<std::unique_ptr<Executor>> one;
  one.push_back(std::make_unique<FakeExecutor>(bad));
  EngineOptions options;
  options.max_running = 1;
  Engine engine(options, std::move(one), Clock::Real(), {}, [&](int) {
    restarting.Notify();
    go_on.WaitForNotification();
    return absl::StatusOr<std::unique_ptr<Executor>>(std::make_unique<FakeExecutor>(good));
  });
  const auto [status, first] = AskEngine(engine, Answer(200, 1));
  const auto [waits_status, waits] = AskEngine(engine, Answer(200, 2));
  ASSERT_TRUE(waits_status.ok() || GetErrorInfo(waits_status)->reason == "DEVICE_LOST");
  first->AwaitFinish();
  restarting.WaitForNotification();
  EXPECT_FALSE(engine.Snapshot().failure.ok());
  EXPECT_FALSE(engine.Snapshot().lost);
  const auto [refused, nobody] = AskEngine(engine, Answer(200, 3));
  EXPECT_EQ(GetErrorInfo(refused)->reason, "DEVICE_LOST");
  go_on.Notify();
  if (waits_status.ok()) {
    waits->AwaitFinish();
    EXPECT_TRUE(waits->status().ok()) << waits->status();
  }
  while (engine.Snapshot().workers_serving < 1) std::this_thread::yield();
  const auto [again_status, again] = AskEngine(engine, Answer(200, 4));
  ASSERT_TRUE(again_status.ok());
  again->AwaitFinish();
  EXPECT_TRUE(again->status().ok());
}

}  // namespace
}  // namespace videonsa
