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

void Push(WaitingQueue& queue, RequestId id, const std::string& tenant, Priority priority,
          absl::Duration receive, double prefill_seconds = 0) {
  queue.Push(id, tenant, priority, WaitingOrder().RankOf(priority, receive, prefill_seconds));
}

TEST(WaitingQueue, IsFirstComeFirstServedWithinAClass) {
  WaitingQueue queue;
  Push(queue, RequestId{3}, "a", Priority::kStandard, absl::Seconds(1));
  Push(queue, RequestId{1}, "b", Priority::kStandard, absl::Seconds(2));
  Push(queue, RequestId{2}, "a", Priority::kStandard, absl::Seconds(3));
  EXPECT_EQ(Values(queue.Front(5)), (std::vector<uint64_t>{3, 1, 2}));
  queue.Remove(RequestId{1});
  EXPECT_EQ(Values(queue.Front(1)), (std::vector<uint64_t>{3}));
  EXPECT_EQ(queue.size(), 2);
  EXPECT_EQ(queue.size(Priority::kStandard), 2);
  EXPECT_EQ(queue.size(Priority::kBatch), 0);
}

TEST(WaitingQueue, AgeBeatsPriorityOnceTheHeadStartIsUsedUp) {
  WaitingQueue queue;
  Push(queue, RequestId{1}, "a", Priority::kBatch, absl::Seconds(0));
  Push(queue, RequestId{2}, "a", Priority::kInteractive,
       absl::Seconds(WaitingOrder().interactive_head_start - 1));
  Push(queue, RequestId{3}, "a", Priority::kInteractive,
       absl::Seconds(WaitingOrder().interactive_head_start + 1));
  EXPECT_EQ(Values(queue.Front(3)), (std::vector<uint64_t>{2, 1, 3}));
}

TEST(WaitingQueue, LongPromptsLetShortOnesGoFirstForABoundedTime) {
  const WaitingOrder order;
  WaitingQueue queue;
  Push(queue, RequestId{1}, "a", Priority::kStandard, absl::Seconds(0), 2);  // two seconds of work
  Push(queue, RequestId{2}, "a", Priority::kStandard,
       absl::Seconds(2 * order.per_prefill_second - 1));
  Push(queue, RequestId{3}, "a", Priority::kStandard,
       absl::Seconds(2 * order.per_prefill_second + 1));
  EXPECT_EQ(Values(queue.Front(3)), (std::vector<uint64_t>{2, 1, 3}));
}

TEST(WaitingQueue, GivesTenantsEqualSharesOfWork) {
  WaitingQueue queue;
  uint64_t id = 1;
  std::map<uint64_t, std::string> owner;
  // One tenant floods, the other asks for as much later.
  for (int i = 0; i < 100; ++i) {
    owner[id] = "flood";
    Push(queue, RequestId{id++}, "flood", Priority::kStandard, absl::Milliseconds(i));
  }
  for (int i = 0; i < 20; ++i) {
    owner[id] = "small";
    Push(queue, RequestId{id++}, "small", Priority::kStandard, absl::Seconds(1));
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
  Push(queue, RequestId{1}, "idle", Priority::kStandard, absl::Seconds(0));
  queue.Charge("greedy", 1e6);
  Push(queue, RequestId{2}, "greedy", Priority::kStandard, absl::Seconds(0));
  Push(queue, RequestId{3}, "idle", Priority::kStandard,
       absl::Seconds(WaitingOrder().max_setback + 1));
  EXPECT_EQ(Values(queue.Front(3)), (std::vector<uint64_t>{1, 2, 3}));
}

TEST(WaitingQueue, ForgetsTenantsThatLeft) {
  WaitingQueue queue;
  for (uint64_t id = 1; id <= 20000; ++id) {
    Push(queue, RequestId{id}, "tenant " + std::to_string(id), Priority::kBatch,
         absl::Seconds(static_cast<double>(id)));
    if (id > 10) queue.Remove(RequestId{id - 10});
  }
  EXPECT_EQ(queue.size(), 10);
  EXPECT_EQ(queue.Front(100).size(), 10u);
}

}  // namespace
}  // namespace videonsa
