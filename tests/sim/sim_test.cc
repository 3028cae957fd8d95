// A small case of the simulator: everything ends, our policy beats the others, nobody starves.
#include <gtest/gtest.h>

#include "tests/sim/cluster.h"

namespace videonsa::sim {
namespace {

constexpr int kRequests = 3000, kWorkers = 4;

TEST(Sim, TheSameSeedGivesTheSameResult) {
  const auto trace = MakeTrace("bursts", 300, 2, 1.0, 7);
  ASSERT_TRUE(trace.ok());
  const Policy ours = Policies(2)[2];
  std::vector<SimResult> first = {Simulate(*trace, "bursts", ours, 2, 1)};
  std::vector<SimResult> second = {Simulate(*trace, "bursts", ours, 2, 1)};
  first[0].real_seconds = second[0].real_seconds = 1;
  EXPECT_EQ(ResultsJson(first), ResultsJson(second));
  EXPECT_FALSE(MakeTrace("none", 1, 1, 1, 1).ok());
}

TEST(Sim, AnIdleWorkerKeepsEveryLimit) {
  const auto trace = MakeTrace("mix", 200, kWorkers, 0.1, 3);
  ASSERT_TRUE(trace.ok());
  const SimResult result = Simulate(*trace, "mix", Policies(kWorkers)[2], kWorkers, 1);
  EXPECT_EQ(result.total(&ClassResult::requests), 200);
  EXPECT_GE(result.total(&ClassResult::good), 198);
}

TEST(Sim, AtSaturationOursIsBetterThanFirstComeAndNobodyStarves) {
  std::vector<SimResult> results;
  for (const char* name : {"mix", "bursts", "heavy"}) {
    const auto trace = MakeTrace(name, kRequests, kWorkers, 1.1, 5);
    ASSERT_TRUE(trace.ok());
    for (const Policy& policy : Policies(kWorkers)) {
      results.push_back(Simulate(*trace, name, policy, kWorkers, 1));
    }
    const SimResult& ours = results.back();
    const SimResult& first_come = results[results.size() - 3];
    EXPECT_GT(ours.good_per_second, 1.5 * first_come.good_per_second) << name;
    EXPECT_EQ(ours.total(&ClassResult::requests), kRequests);
    for (const ClassResult& result : ours.by_priority) {
      EXPECT_GT(result.good, 0) << name;
    }
    // A batch request waits at most for the work of a head start more than under first come.
    EXPECT_LT(ours.by_priority[0].longest_wait, first_come.by_priority[0].longest_wait + 300);
  }
  std::fputs(ResultsText(results).c_str(), stdout);
}

// Ten minutes at ten times what one worker can do: everybody ends once, answered or given up, and
// everything comes back (Cluster checks it).
TEST(Sim, TenMinutesOfTenfoldOverloadEndForEverybody) {
  const auto trace = MakeTrace("mix", 7000, 1, 10, 3);
  ASSERT_TRUE(trace.ok());
  EXPECT_GT(trace->back().arrival, 550);
  const SimResult result = Simulate(*trace, "mix", Policies(1)[2], 1, 1);
  EXPECT_EQ(result.total(&ClassResult::requests), 7000);
  EXPECT_EQ(result.total(&ClassResult::answered) + result.total(&ClassResult::gave_up), 7000);
  EXPECT_GT(result.total(&ClassResult::good), 100);
}

// Where answers are so long that pages run out, interactive requests take those of batch answers.
TEST(Sim, LongAnswersLeaveForInteractiveRequests) {
  const auto trace = MakeTrace("answers", 1500, 2, 1.1, 5);
  ASSERT_TRUE(trace.ok());
  Policy ours = Policies(2)[2];
  const SimResult with = Simulate(*trace, "answers", ours, 2, 1);
  ours.engine.max_preemptions = 0;
  const SimResult without = Simulate(*trace, "answers", ours, 2, 1);
  EXPECT_GT(with.preemptions, 20);
  EXPECT_EQ(without.preemptions, 0);
  const size_t interactive = static_cast<size_t>(Priority::kInteractive);
  // Who leaves is computed again, so it is no gain for all; the interactive must not lose by it.
  EXPECT_GT(with.by_priority[interactive].good, 0.97 * without.by_priority[interactive].good);
  EXPECT_EQ(with.total(&ClassResult::requests), 1500);
  for (const ClassResult& result : with.by_priority) {
    EXPECT_LT(result.longest_wait, 600) << "starved";
  }
  std::fputs(ResultsText({with, without}).c_str(), stdout);
}

}  // namespace
}  // namespace videonsa::sim
