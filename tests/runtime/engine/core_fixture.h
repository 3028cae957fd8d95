#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "runtime/engine/engine_core.h"
#include "tests/support/engine_fixtures.h"
#include "tests/support/fake_executor.h"

namespace videonsa {

/// The core of one worker, step by step.
class EngineCoreTest : public ::testing::Test {
 protected:
  EngineCoreTest() { fake_.info = SmallExecutorInfo(); }

  void Start() {
    executor_ = std::make_unique<FakeExecutor>(fake_);
    runner_ = std::make_unique<JobRunner>(executor_.get());
    core_ = std::make_unique<EngineCore>(options_, fake_.info, clock_, nullptr);
  }

  std::shared_ptr<RecordingStream> Ask(uint64_t id, const PromptShape& shape,
                                       Priority priority = Priority::kStandard,
                                       absl::Duration deadline = absl::InfiniteDuration()) {
    auto stream = std::make_shared<RecordingStream>();
    Request request;
    request.id = RequestId{id};
    request.tenant = "t";
    request.priority = priority;
    request.receive = clock_.Monotonic();
    request.deadline = deadline;
    request.stream = stream;
    request.cancelled = std::make_shared<std::atomic<bool>>(false);
    core_->Handle(SubmitMessage{std::move(request), 0});
    core_->Handle(ReadyMessage{RequestId{id}, MakePrompt(shape)});
    return stream;
  }

  // Takes and does one job; returns its plan, empty if there was nothing to do.
  StepPlan Step() {
    std::optional<WorkerJob> job = core_->NextJob();
    if (!job) return {};
    const StepPlan plan = job->plan;
    runner_->Run(*std::move(job), [this](WorkerEvent event) {
      std::visit([this](auto&& e) { core_->Handle(EngineMessage(std::move(e))); },
                 std::move(event));
    });
    core_->CheckInvariants();
    return plan;
  }

  FakeClock clock_;
  EngineOptions options_;
  FakeExecutorOptions fake_;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<JobRunner> runner_;
  std::unique_ptr<EngineCore> core_;
};

}  // namespace videonsa
