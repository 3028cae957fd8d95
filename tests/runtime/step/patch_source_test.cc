// Where the vision tower gets its rows: whole batches, and streams between two threads.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "absl/synchronization/notification.h"
#include "runtime/base/error.h"
#include "runtime/step/patch_stream.h"

namespace videonsa {
namespace {

constexpr PatchGrid kGrid = {6, 2, 2};
constexpr int64_t kPatchBytes = 4 * kPatchDim * 4;  // of one temporal patch

// Temporal patches [t_begin, t_end) of kGrid; every value of patch t is t.
std::shared_ptr<PatchBatch> Piece(int t_begin, int t_end) {
  auto batch = std::make_shared<PatchBatch>();
  batch->grid = {t_end - t_begin, kGrid.h, kGrid.w};
  for (int t = t_begin; t < t_end; ++t) {
    batch->rows.insert(batch->rows.end(), 4 * kPatchDim, static_cast<float>(t));
  }
  return batch;
}

std::string ReasonOf(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  return info ? info->reason : "";
}

TEST(WholePatches, GivesAnyRangeUntilItIsClosed) {
  const std::shared_ptr<const PatchBatch> batch = Piece(0, 6);
  const std::shared_ptr<PatchSource> a = WholePatches(batch), b = WholePatches(batch);
  a->Begin();
  EXPECT_TRUE(a->state().status.ok());
  EXPECT_EQ(a->state().t_ready, 6);
  const PatchRows rows = a->Take(2, 5);
  EXPECT_EQ(rows.t_begin, 2);
  EXPECT_EQ(rows.t_end, 5);
  EXPECT_EQ(rows.rows[0], 2.0f);
  a->Close();
  a->Close();
  EXPECT_TRUE(a->Take(2, 5).empty());
  EXPECT_EQ(rows.rows[3 * 4 * kPatchDim - 1], 4.0f);  // what was taken stays
  EXPECT_EQ(b->Take(0, 6).rows[0], 0.0f);
  EXPECT_EQ(batch.use_count(), 3);  // ours, b's and the taken rows'
}

TEST(WholePatches, SaysWhenValuesAreMissing) {
  auto batch = Piece(0, 6);
  batch->rows.pop_back();
  EXPECT_EQ(ReasonOf(WholePatches(batch)->state().status), "SEQUENCE_INVALID");
}

TEST(PatchStream, GivesPiecesInOrderAndFreesThem) {
  int begun = 0, changed = 0;
  PatchStream stream(kGrid, 100 * kPatchBytes, {[&] { ++begun; }, [&] { ++changed; }});
  stream.Begin();
  stream.Begin();
  EXPECT_EQ(begun, 1);
  auto first = Piece(0, 2);
  const std::weak_ptr<PatchBatch> watched = first;
  ASSERT_TRUE(stream.Push(kGrid, 0, std::move(first)).ok());
  ASSERT_TRUE(stream.Push(kGrid, 2, Piece(2, 6)).ok());
  EXPECT_EQ(changed, 2);
  EXPECT_EQ(stream.state().t_ready, 5);  // the last one waits for the end of the load
  EXPECT_EQ(stream.buffered_bytes(), 6 * kPatchBytes);
  EXPECT_EQ(stream.Take(0, 1).rows[0], 0.0f);
  {
    const PatchRows rest = stream.Take(1, 4);  // as far as the piece goes
    EXPECT_EQ(rest.t_end, 2);
    EXPECT_EQ(rest.rows[0], 1.0f);
    EXPECT_FALSE(watched.expired());
  }
  EXPECT_TRUE(watched.expired());
  EXPECT_EQ(stream.buffered_bytes(), 4 * kPatchBytes);
  stream.SetCosts(12, absl::Seconds(1), absl::Seconds(2));
  stream.Finish(absl::OkStatus());
  EXPECT_EQ(stream.state().t_ready, 6);
  EXPECT_EQ(stream.state().frames_decoded, 12);
  EXPECT_EQ(stream.Take(2, 6).t_end, 6);
  EXPECT_EQ(stream.buffered_bytes(), 0);
}

TEST(PatchStream, AFullBufferMakesThePusherWaitForTheTaker) {
  constexpr int kPatches = 400;
  constexpr PatchGrid grid = {kPatches, 2, 2};
  std::atomic<int64_t> most = 0;
  PatchStream stream(grid, 3 * kPatchBytes, {});
  std::thread pusher([&] {
    for (int t = 0; t < kPatches; ++t) {
      ASSERT_TRUE(stream.Push(grid, t, Piece(t, t + 1)).ok());
      most = std::max(most.load(), stream.buffered_bytes());
    }
    stream.Finish(absl::OkStatus());
  });
  std::mt19937 random(1);
  for (int t = 0; t < kPatches;) {
    const int ready = stream.state().t_ready;
    if (ready <= t) {
      std::this_thread::yield();
      continue;
    }
    const PatchRows rows = stream.Take(t, t + 1 + static_cast<int>(random() % (ready - t)));
    ASSERT_EQ(rows.t_begin, t);
    ASSERT_EQ(rows.rows[0], static_cast<float>(t));
    t = rows.t_end;
  }
  pusher.join();
  EXPECT_LE(most, 3 * kPatchBytes);
  EXPECT_GT(most, kPatchBytes);
}

TEST(PatchStream, APieceAboveTheLimitPassesAlone) {
  PatchStream stream(kGrid, 1, {});
  ASSERT_TRUE(stream.Push(kGrid, 0, Piece(0, 3)).ok());
  EXPECT_EQ(stream.Take(0, 3).t_end, 3);
  ASSERT_TRUE(stream.Push(kGrid, 3, Piece(3, 6)).ok());
}

TEST(PatchStream, ClosingWakesThePusherAndFreesTheRows) {
  absl::Notification closed;
  PatchStream stream(kGrid, 1, {nullptr, [&] {
                                  if (stream.closed()) closed.Notify();
                                }});
  ASSERT_TRUE(stream.Push(kGrid, 0, Piece(0, 1)).ok());
  std::thread pusher([&] {
    EXPECT_EQ(stream.Push(kGrid, 1, Piece(1, 2)).code(), absl::StatusCode::kCancelled);
    stream.Finish(absl::CancelledError("stopped"));
  });
  stream.Close();
  pusher.join();
  EXPECT_TRUE(closed.HasBeenNotified());
  EXPECT_EQ(stream.buffered_bytes(), 0);
  EXPECT_EQ(stream.state().t_ready, 6);
  EXPECT_TRUE(stream.state().status.ok());  // its end is no news to who closed it
  EXPECT_TRUE(stream.Take(0, 1).empty());
  stream.Begin();  // does nothing
  EXPECT_EQ(stream.Push(kGrid, 1, Piece(1, 2)).code(), absl::StatusCode::kCancelled);
}

TEST(PatchStream, AFailureIsSaidAfterWhatHasCome) {
  PatchStream stream(kGrid, 100 * kPatchBytes, {});
  ASSERT_TRUE(stream.Push(kGrid, 0, Piece(0, 2)).ok());
  stream.Finish(absl::UnavailableError("the decoder died"));
  stream.Finish(absl::OkStatus());
  EXPECT_EQ(stream.state().status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(stream.Take(0, 2).t_end, 2);
}

TEST(PatchStream, AClipThatIsNotWhatWasPlannedIsCorrupt) {
  struct Case {
    PatchGrid whole;
    int t_begin;
    PatchGrid piece;
  };
  const Case cases[] = {
      {{7, 2, 2}, 2, {1, 2, 2}}, {{6, 4, 2}, 2, {1, 4, 2}}, {kGrid, 3, {1, 2, 2}},
      {kGrid, 1, {1, 2, 2}},     {kGrid, 2, {5, 2, 2}},     {kGrid, 2, {1, 4, 2}},
  };
  for (const Case& bad : cases) {
    PatchStream stream(kGrid, 100 * kPatchBytes, {});
    ASSERT_TRUE(stream.Push(kGrid, 0, Piece(0, 2)).ok());
    auto piece = std::make_shared<PatchBatch>();
    piece->grid = bad.piece;
    piece->rows.resize(static_cast<size_t>(bad.piece.num_patches()) * kPatchDim);
    EXPECT_EQ(ReasonOf(stream.Push(bad.whole, bad.t_begin, piece)), "MEDIA_CORRUPT");
  }
  PatchStream stream(kGrid, 100 * kPatchBytes, {});
  ASSERT_TRUE(stream.Push(kGrid, 0, Piece(0, 5)).ok());
  stream.Finish(absl::OkStatus());
  EXPECT_EQ(ReasonOf(stream.state().status), "MEDIA_CORRUPT");
}

}  // namespace
}  // namespace videonsa
