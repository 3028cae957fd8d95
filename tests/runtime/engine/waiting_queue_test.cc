#include "runtime/engine/waiting_queue.h"

#include <gtest/gtest.h>

#include <map>

namespace videonsa {
namespace {

std::vector<uint64_t> Values(const std::vector<RequestId>& ids) {
  std::vector<uint64_t> values;
  for (const RequestId id : ids) values.push_back(id.value);
  return values;
}

TEST(WaitingQueue, IsFirstComeFirstServedWithinAClass) {
  WaitingQueue queue;
  queue.Push(RequestId{3}, "a", Priority::kStandard, absl::Seconds(1));
  queue.Push(RequestId{1}, "b", Priority::kStandard, absl::Seconds(2));
  queue.Push(RequestId{2}, "a", Priority::kStandard, absl::Seconds(3));
  EXPECT_EQ(Values(queue.Front(5)), (std::vector<uint64_t>{3, 1, 2}));
  queue.Remove(RequestId{1});
  EXPECT_EQ(Values(queue.Front(1)), (std::vector<uint64_t>{3}));
  EXPECT_EQ(queue.size(), 2);
  EXPECT_EQ(queue.size(Priority::kStandard), 2);
  EXPECT_EQ(queue.size(Priority::kBatch), 0);
}

TEST(WaitingQueue, AgeBeatsPriorityOnceTheHeadStartIsUsedUp) {
  WaitingQueue queue;
  queue.Push(RequestId{1}, "a", Priority::kBatch, absl::Seconds(0));
  queue.Push(RequestId{2}, "a", Priority::kInteractive, absl::Seconds(29));
  queue.Push(RequestId{3}, "a", Priority::kInteractive, absl::Seconds(31));
  EXPECT_EQ(Values(queue.Front(3)), (std::vector<uint64_t>{2, 1, 3}));
}

TEST(WaitingQueue, GivesTenantsEqualSharesOfWork) {
  WaitingQueue queue;
  uint64_t id = 1;
  std::map<uint64_t, std::string> owner;
  // One tenant floods, the other asks for as much later.
  for (int i = 0; i < 100; ++i) {
    owner[id] = "flood";
    queue.Push(RequestId{id++}, "flood", Priority::kStandard, absl::Milliseconds(i));
  }
  for (int i = 0; i < 20; ++i) {
    owner[id] = "small";
    queue.Push(RequestId{id++}, "small", Priority::kStandard, absl::Seconds(1));
  }
  std::map<std::string, int> served;
  for (int round = 0; round < 40; ++round) {
    const RequestId next = queue.Front(1).front();
    queue.Remove(next);
    queue.Charge(owner[next.value], 2.0);
    ++served[owner[next.value]];
  }
  EXPECT_NEAR(served["small"], 20, 2);
  EXPECT_NEAR(served["flood"], 20, 2);
}

TEST(WaitingQueue, ASurplusNeverSetsATenantBackForLong) {
  WaitingQueue queue;
  queue.Push(RequestId{1}, "idle", Priority::kStandard, absl::Seconds(0));
  queue.Charge("greedy", 1e6);
  queue.Push(RequestId{2}, "greedy", Priority::kStandard, absl::Seconds(0));
  queue.Push(RequestId{3}, "idle", Priority::kStandard,
             absl::Seconds(WaitingQueue::kMaxSetback + 1));
  EXPECT_EQ(Values(queue.Front(3)), (std::vector<uint64_t>{1, 2, 3}));
}

TEST(WaitingQueue, ForgetsTenantsThatLeft) {
  WaitingQueue queue;
  for (uint64_t id = 1; id <= 20000; ++id) {
    queue.Push(RequestId{id}, "tenant " + std::to_string(id), Priority::kBatch,
               absl::Seconds(static_cast<double>(id)));
    if (id > 10) queue.Remove(RequestId{id - 10});
  }
  EXPECT_EQ(queue.size(), 10);
  EXPECT_EQ(queue.Front(100).size(), 10u);
}

}  // namespace
}  // namespace videonsa
