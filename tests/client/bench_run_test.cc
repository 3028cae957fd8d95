// Load runs against a fake server in real time; delays are small and bounds are wide, because the
// clock is what is tested.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "absl/time/clock.h"
#include "client/bench/summary.h"
#include "client/channel.h"
#include "client/format.h"
#include "tests/client/fake_server.h"

namespace videonsa::client {
namespace {

using Writer = grpc::ServerWriter<proto::AskStreamResponse>;

void SendAnswer(Writer* writer, const std::string& text) {
  proto::AskStreamResponse event;
  event.mutable_delta()->set_text(text);
  event.mutable_delta()->set_token_count(1);
  writer->Write(event);
  writer->Write(event);
  *event.mutable_final() = SampleResult();
  writer->Write(event);
}

class BenchRunTest : public testing::Test {
 protected:
  BenchRunTest() {
    for (int i = 0; i < 4; ++i) channels_.push_back(*OpenChannel({.address = server_.address()}));
    items_.resize(1);
    proto::Turn& turn = *items_[0].question.add_turns();
    turn.set_role(proto::Turn::ROLE_USER);
    turn.add_parts()->set_text("Why?");
    run_.timeout = absl::Seconds(20);
    run_.grace = absl::Seconds(5);
  }

  PlanSpec Constant(double rate, int64_t requests) {
    PlanSpec spec;
    spec.arrival.kind = ArrivalSpec::Kind::kConstant;
    spec.arrival.rate = rate;
    spec.requests = requests;
    return spec;
  }

  BenchSummary Run(const PlanSpec& spec) {
    run_.closed_loop = !spec.arrival.open();
    run_.concurrency = spec.arrival.concurrency;
    samples_ = RunLoad(MakePlan(spec), items_, channels_, run_, nullptr);
    JudgeAnswers(items_, samples_);
    return Summarize(samples_, {}, spec.arrival.open());
  }

  // A server that handles one request at a time and once stands still.
  void StallOnce(int at, absl::Duration delay, absl::Duration stall) {
    auto turn = std::make_shared<absl::Mutex>();
    auto count = std::make_shared<std::atomic<int>>(0);
    state_.answer = [=](grpc::ServerContext*, const proto::AskStreamRequest&, Writer* writer) {
      absl::MutexLock lock(turn.get());
      absl::SleepFor(count->fetch_add(1) == at ? stall : delay);
      SendAnswer(writer, "x");
      return grpc::Status::OK;
    };
  }

  FakeState state_;
  FakeServer server_{state_};
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<BenchItem> items_;
  RunOptions run_;
  std::vector<Sample> samples_;
};

TEST_F(BenchRunTest, KnownDelayGivesKnownPercentiles) {
  state_.answer = [](auto*, const auto&, Writer* writer) {
    absl::SleepFor(absl::Milliseconds(100));
    SendAnswer(writer, "x");
    return grpc::Status::OK;
  };
  const BenchSummary summary = Run(Constant(40, 60));
  EXPECT_EQ(summary.ok, 60);
  EXPECT_EQ(summary.lost + summary.wrong + summary.failed, 0);
  EXPECT_EQ(summary.checked, 60);
  EXPECT_GE(summary.Find("ttft")->histogram.Percentile(0.5), 0.1);
  EXPECT_LT(summary.Find("ttft")->histogram.Percentile(0.5), 0.25);
}

// The point of an open loop: requests that would have come during a stall wait too, and count.
TEST_F(BenchRunTest, AStallShowsInOpenLoopAndHidesInClosedLoop) {
  StallOnce(20, absl::Milliseconds(1), absl::Seconds(1));
  const BenchSummary open = Run(Constant(50, 150));
  EXPECT_EQ(open.ok, 150);
  EXPECT_GT(open.Find("e2e")->histogram.Percentile(0.99), 0.9);
  EXPECT_GT(open.Find("e2e")->histogram.Percentile(0.80), 0.2);

  StallOnce(20, absl::Milliseconds(1), absl::Seconds(1));
  PlanSpec closed;
  closed.arrival.kind = ArrivalSpec::Kind::kClosed;
  closed.arrival.concurrency = 1;
  closed.requests = 150;
  const BenchSummary hidden = Run(closed);
  EXPECT_EQ(hidden.ok, 150);
  EXPECT_LT(hidden.Find("e2e")->histogram.Percentile(0.99), 0.5);
  EXPECT_GT(hidden.Find("e2e")->histogram.max(), 0.9);
}

TEST_F(BenchRunTest, ArrivalsBeyondTheLimitAreDroppedAndCounted) {
  StallOnce(0, absl::Milliseconds(1), absl::Milliseconds(600));
  run_.max_inflight = 5;
  const BenchSummary summary = Run(Constant(100, 50));
  EXPECT_GT(summary.dropped, 20);
  EXPECT_EQ(summary.dropped + summary.sent, 50);
  EXPECT_EQ(summary.ok, summary.sent);
}

TEST_F(BenchRunTest, LostAndWrongAreFound) {
  std::atomic<int> count = 0;
  state_.answer = [&](auto*, const auto&, Writer* writer) {
    const int n = count++;
    if (n == 7) return grpc::Status::OK;  // no final event
    if (n == 9) return TypedError(grpc::StatusCode::UNAVAILABLE, "QUEUE_FULL", "full");
    SendAnswer(writer, n == 5 ? "different" : "x");
    return grpc::Status::OK;
  };
  const BenchSummary summary = Run(Constant(200, 30));
  EXPECT_EQ(summary.lost, 1);
  EXPECT_EQ(summary.wrong, 1);
  EXPECT_EQ(summary.errors.at("UNAVAILABLE QUEUE_FULL"), 1);
  EXPECT_EQ(summary.ok, 28);
}

TEST_F(BenchRunTest, CancelsAndSlowReadersEndToo) {
  state_.answer = [](grpc::ServerContext* context, const auto&, Writer* writer) {
    for (int i = 0; i < 20 && !context->IsCancelled(); ++i) absl::SleepFor(absl::Milliseconds(5));
    SendAnswer(writer, "x");
    return grpc::Status::OK;
  };
  PlanSpec spec = Constant(100, 60);
  spec.cancel_rate = 0.5;
  spec.cancel_within_s = 0.05;
  spec.slow_reader_share = 0.3;
  run_.slow_read_delay = absl::Milliseconds(30);
  const BenchSummary summary = Run(spec);
  EXPECT_GT(summary.cancelled, 15);
  EXPECT_EQ(summary.lost, 0);
  EXPECT_EQ(summary.failed, 0);
  EXPECT_EQ(summary.ok + summary.cancelled, 60);
}

TEST_F(BenchRunTest, DeadlinesEndWhatHangs) {
  state_.answer = [](grpc::ServerContext* context, const auto&, Writer*) {
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(5));
    return grpc::Status::CANCELLED;
  };
  run_.timeout = absl::Milliseconds(200);
  const BenchSummary summary = Run(Constant(100, 10));
  EXPECT_EQ(summary.failed, 10);
  EXPECT_EQ(summary.lost, 0);
  EXPECT_EQ(summary.errors.at("DEADLINE_EXCEEDED"), 10);
}

TEST_F(BenchRunTest, EstimatesAreUnary) {
  PlanSpec spec = Constant(200, 20);
  spec.mix = {{RequestKind::kEstimate, 1.0}};
  const BenchSummary summary = Run(spec);
  EXPECT_EQ(summary.ok, 20);
  EXPECT_EQ(summary.Find("estimate")->histogram.count(), 20);
  EXPECT_EQ(summary.estimate_first_error.count(), 0);  // nothing to compare with
}

TEST_F(BenchRunTest, EstimatesAreComparedWithWhatAnswersTook) {
  PlanSpec spec = Constant(200, 40);
  spec.mix = {{RequestKind::kEstimate, 0.5}, {RequestKind::kAsk, 0.5}};
  const BenchSummary summary = Run(spec);
  EXPECT_EQ(summary.ok, 40);
  ASSERT_GT(summary.estimate_first_error.count(), 0);
  // The fake server predicts 3 s until the first token, whatever it then reports.
  const proto::Timing timing = SampleResult().timing();
  const double real = absl::ToDoubleSeconds(FromProto(timing.vision_encode())) +
                      absl::ToDoubleSeconds(FromProto(timing.prefill()));
  EXPECT_NEAR(summary.estimate_first_error.Percentile(0.5), std::abs(3 - real) / real, 1e-2);
}

TEST_F(BenchRunTest, StopEndsTheRunEarly) {
  Cancellation stop;
  run_.cancellation = &stop;
  state_.answer = [&](grpc::ServerContext* context, const auto&, Writer*) {
    stop.Cancel();
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(5));
    return grpc::Status::CANCELLED;
  };
  const BenchSummary summary = Run(Constant(1, 1000));
  EXPECT_LT(summary.sent, 10);
  EXPECT_EQ(summary.lost, 0);
}

}  // namespace
}  // namespace videonsa::client
