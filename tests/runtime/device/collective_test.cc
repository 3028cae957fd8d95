// Ranks put their results together: threads of one process, and NCCL behind a stand-in.
#include "runtime/device/collective.h"

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "runtime/base/error.h"

namespace videonsa {
namespace {

std::unique_ptr<CollectiveGroup> FakeNccl(int num_ranks) {
  std::vector<int> gpus;
  for (int i = 0; i < num_ranks; ++i) gpus.push_back(i);
  auto group = CreateNcclCollectives(gpus, VIDEONSA_FAKE_NCCL);
  EXPECT_TRUE(group.ok()) << group.status();
  return *std::move(group);
}

// Calls body(rank) on a thread for each rank.
void OnRanks(int num_ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

struct Kind {
  const char* name;
  std::unique_ptr<CollectiveGroup> (*make)(int num_ranks);
  bool waits_in_call;  // NCCL's calls only enqueue: its kernels wait, and CommAbort ends them
};

class Collectives : public testing::TestWithParam<Kind> {};

TEST_P(Collectives, SumsAreThoseOfTheRanksInOrderOnEveryRank) {
  for (const int ranks : {1, 2, 3, 4}) {
    const auto group = GetParam().make(ranks);
    ASSERT_EQ(group->num_ranks(), ranks);
    for (const int64_t rows : {0, 1, 3, 700}) {
      const int64_t cols = 11;
      const auto value = [&](int rank, int64_t i) {
        // Sums whose rounding depends on the order.
        return static_cast<float>(i % 97 - 48) * 1.37f + (rank % 2 ? -3e4f : 1e-3f) * (rank + 1);
      };
      std::vector<std::vector<float>> x(static_cast<size_t>(ranks));
      for (int rank = 0; rank < ranks; ++rank) {
        for (int64_t i = 0; i < rows * cols; ++i) x[rank].push_back(value(rank, i));
      }
      OnRanks(ranks, [&](int rank) {
        group->rank(rank).AllReduceSum(MatrixView(x[rank].data(), DType::kF32, rows, cols));
      });
      for (int64_t i = 0; i < rows * cols; ++i) {
        float sum = value(0, i);
        for (int rank = 1; rank < ranks; ++rank) sum += value(rank, i);
        for (int rank = 0; rank < ranks; ++rank) {
          ASSERT_EQ(x[rank][static_cast<size_t>(i)], sum) << ranks << " ranks, element " << i;
        }
      }
    }
    for (int rank = 0; rank < ranks; ++rank) EXPECT_TRUE(group->rank(rank).status().ok());
  }
}

TEST_P(Collectives, SharesOfAnySizeAreGathered) {
  for (const int ranks : {1, 2, 4}) {
    const auto group = GetParam().make(ranks);
    for (const int64_t units : {1, 2, 3, 9}) {
      const int64_t rows = 5 * units, cols = 7;
      std::vector<std::vector<uint16_t>> x(static_cast<size_t>(ranks));
      for (int rank = 0; rank < ranks; ++rank) {
        x[rank].assign(static_cast<size_t>(rows * cols), 9999);
        const RankShare own = ShareOf(units, rank, ranks);
        for (int64_t i = own.begin * 5 * cols; i < own.end * 5 * cols; ++i) {
          x[rank][static_cast<size_t>(i)] = static_cast<uint16_t>(i);
        }
      }
      OnRanks(ranks, [&](int rank) {
        group->rank(rank).AllGather(MatrixView(x[rank].data(), DType::kBF16, rows, cols), units);
      });
      for (int rank = 0; rank < ranks; ++rank) {
        for (size_t i = 0; i < x[rank].size(); ++i) ASSERT_EQ(x[rank][i], i) << ranks << " ranks";
      }
    }
  }
}

TEST_P(Collectives, ManyCallsStayInStep) {
  const auto group = GetParam().make(4);
  OnRanks(4, [&](int rank) {
    std::vector<float> x(33, static_cast<float>(rank));
    for (int call = 0; call < 300; ++call) {
      group->rank(rank).AllReduceSum(MatrixView(x.data(), DType::kF32, 3, 11));
      for (float& value : x) value = value / 4 + (rank == call % 4 ? 1.0f : 0.0f);
    }
    group->rank(rank).AllReduceSum(MatrixView(x.data(), DType::kF32, 3, 11));
    EXPECT_EQ(x.front(), x.back());
  });
}

TEST_P(Collectives, AbortEndsWaitsAndLaterCalls) {
  const auto group = GetParam().make(3);
  absl::Notification started, aborted;
  const absl::Status lost = MakeError(absl::StatusCode::kUnavailable, "DEVICE_LOST", "gone");
  OnRanks(3, [&](int rank) {
    Collective& own = group->rank(rank);
    std::vector<float> x(24, 1.0f);
    const TensorView view = MatrixView(x.data(), DType::kF32, 4, 6);
    own.AllReduceSum(view);
    EXPECT_EQ(x[0], 3.0f);
    if (rank == 2) {  // does not come to the second call
      started.WaitForNotification();
      group->Abort(lost);
      group->Abort(MakeError(absl::StatusCode::kUnavailable, "DEVICE_LOST", "too"));
      aborted.Notify();
    } else {
      if (rank == 0) started.Notify();
      if (!GetParam().waits_in_call) aborted.WaitForNotification();
      own.AllReduceSum(view);
    }
    own.AllReduceSum(view);
    own.AllGather(view, 2);
    EXPECT_EQ(own.status(), lost);
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, Collectives,
                         testing::Values(Kind{"threads", &CreateThreadCollectives, true},
                                         Kind{"nccl", &FakeNccl, false}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Shares, CoverEverythingOnceAndEvenly) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    for (const int64_t total : {0, 1, 2, 7, 8, 152064}) {
      int64_t at = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const RankShare share = ShareOf(total, rank, ranks);
        EXPECT_EQ(share.begin, at);
        EXPECT_GE(share.size(), total / ranks);
        EXPECT_LE(share.size(), total / ranks + 1);
        at = share.end;
      }
      EXPECT_EQ(at, total);
    }
  }
}

TEST(NcclCollectives, AMissingLibraryIsATypedError) {
  const auto group = CreateNcclCollectives({0, 1}, "libno-such-nccl.so.2");
  ASSERT_EQ(group.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorInfo(group.status())->reason, "CUDA_LIBRARY_MISSING");
  EXPECT_TRUE(absl::StrContains(group.status().message(), "libno-such-nccl.so.2"));
  // A library, but not this one.
  const auto wrong = CreateNcclCollectives({0, 1}, "libm.so.6");
  EXPECT_EQ(GetErrorInfo(wrong.status())->reason, "CUDA_LIBRARY_MISSING");
  EXPECT_TRUE(absl::StrContains(wrong.status().message(), "nccl")) << wrong.status();
}

TEST(NcclCollectives, GpusThatCannotBeJoinedAreATypedError) {
  const auto group = CreateNcclCollectives({0, 77}, VIDEONSA_FAKE_NCCL);
  ASSERT_EQ(group.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorInfo(group.status())->reason, "NCCL_FAILED");
  EXPECT_TRUE(absl::StrContains(group.status().message(), "2 GPUs")) << group.status();
}

TEST(NcclCollectives, AFailedCallLosesTheGroup) {
  const auto group = FakeNccl(2);
  std::vector<float> x(13, 1.0f);
  group->rank(1).AllReduceSum(MatrixView(x.data(), DType::kF32, 1, 13));
  for (int rank = 0; rank < 2; ++rank) {
    const absl::Status status = group->rank(rank).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(GetErrorInfo(status)->reason, "DEVICE_LOST");
    EXPECT_TRUE(absl::StrContains(status.message(), "rank 1 of 2: all-reduce")) << status;
  }
}

}  // namespace
}  // namespace videonsa
