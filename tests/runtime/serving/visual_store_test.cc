#include "runtime/serving/visual_store.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/runtime/serving/serving_fixtures.h"
#include "tests/support/fake_media.h"

namespace videonsa {
namespace {

VideoPart Clip(const std::string& name, int frames = 4) {
  VideoPart part;
  part.source = FakeSource(name);
  part.sampling.num_frames = frames;
  return part;
}

const Sha256Digest kSalt = TenantSalts("secret").Of("t");
const Sha256Digest kOtherSalt = TenantSalts("secret").Of("other");

// Patches of a fake clip of 4 frames.
constexpr int64_t kClipBytes = int64_t{2} * 16 * kPatchDim * 4;

class VisualStoreTest : public ::testing::Test {
 protected:
  VisualStore Store(int64_t bytes) {
    return VisualStore(&media_, TenantSalts(), clock_, PreprocessMode::kLmmsEval, bytes);
  }
  FakeMediaLoader media_;
  FakeClock clock_;
};

TEST(VisualKey, ChangesWithEverythingThatChangesPatches) {
  const Sha256Digest base = VisualKey(kSalt, Clip("a"), PreprocessMode::kLmmsEval);
  EXPECT_EQ(base, VisualKey(kSalt, Clip("a"), PreprocessMode::kLmmsEval));
  EXPECT_NE(base, VisualKey(kSalt, Clip("b"), PreprocessMode::kLmmsEval));
  EXPECT_NE(base, VisualKey(kSalt, Clip("a", 6), PreprocessMode::kLmmsEval));
  EXPECT_NE(base, VisualKey(kSalt, Clip("a"), PreprocessMode::kQwenVlUtils));
  VideoPart fps = Clip("a");
  fps.sampling.num_frames.reset();
  fps.sampling.fps = 1.0;
  const Sha256Digest one = VisualKey(kSalt, fps, PreprocessMode::kLmmsEval);
  fps.sampling.fps = 1.0000000001;
  EXPECT_NE(one, VisualKey(kSalt, fps, PreprocessMode::kLmmsEval));
  EXPECT_NE(base, VisualKey(kOtherSalt, Clip("a"), PreprocessMode::kLmmsEval));
  ImagePart image;
  image.source = FakeSource("a");
  EXPECT_NE(base, VisualKey(kSalt, image, PreprocessMode::kLmmsEval));
}

TEST(TenantSalts, AreOnePerTenantAndProcess) {
  const TenantSalts salts;
  EXPECT_EQ(salts.Of("a"), salts.Of("a"));
  EXPECT_NE(salts.Of("a"), salts.Of("b"));
  EXPECT_NE(salts.Of("a"), TenantSalts().Of("a")) << "another process has another secret";
  // A salt is no hash of what everybody knows: without the secret it cannot be computed.
  EXPECT_NE(salts.Of("a"), HmacSha256("", "a"));
  EXPECT_NE(salts.Of("a"), Sha256Of("a"));
}

// Names that would run into what follows them if keys were hashes of joined texts.
TEST(VisualKey, NoNameOfATenantRunsIntoTheContent) {
  const TenantSalts salts;
  std::set<Sha256Digest> keys;
  const std::vector<std::string> names = {"", "a", "a|", "a:", "aa", "1:a", "video|a"};
  for (const std::string& tenant : names) {
    for (const char* clip : {"a", "b"}) {
      const Sha256Digest key = VisualKey(salts.Of(tenant), Clip(clip), PreprocessMode::kLmmsEval);
      EXPECT_TRUE(keys.insert(key).second) << tenant << " " << clip;
      EXPECT_EQ(key, VisualKey(salts.Of(tenant), Clip(clip), PreprocessMode::kLmmsEval));
    }
  }
  EXPECT_EQ(keys.size(), 2 * names.size());
}

TEST(VisualKey, HashesInlineBytesAndKnowsNothingOfAnUnhashedFile) {
  VideoPart part;
  part.source.path = "clip";
  EXPECT_EQ(VisualKey(kSalt, part, PreprocessMode::kLmmsEval), Sha256Digest{});
  part.source.path.clear();
  part.source.bytes = std::make_shared<const std::string>("bytes");
  EXPECT_NE(VisualKey(kSalt, part, PreprocessMode::kLmmsEval), Sha256Digest{});
}

TEST_F(VisualStoreTest, KeepsRecentVisualsWithinItsBytes) {
  VisualStore store = Store(2 * kClipBytes);
  for (const char* name : {"a", "b", "a", "c", "a", "b"}) {
    ASSERT_TRUE(store.Load("t", Clip(name), {}).ok());
    EXPECT_LE(store.cached_bytes(), 2 * kClipBytes);
  }
  EXPECT_EQ(media_.num_loads(), 4);  // a, b, c, and b again: c took its place
  EXPECT_EQ(store.num_shared(), 2);
}

TEST_F(VisualStoreTest, TenantsShareNothing) {
  VisualStore store = Store(100 * kClipBytes);
  ASSERT_TRUE(store.Load("a", Clip("clip"), {}).ok());
  ASSERT_TRUE(store.Load("b", Clip("clip"), {}).ok());
  EXPECT_EQ(media_.num_loads(), 2);
  EXPECT_EQ(store.num_shared(), 0);
  ASSERT_TRUE(store.Load("a", Clip("clip"), {}).ok());
  EXPECT_EQ(media_.num_loads(), 2) << "the first assertions hold for a cache that never hits, too";
  EXPECT_EQ(store.num_shared(), 1);
}

TEST_F(VisualStoreTest, LoadsInFlightAreNotSharedBetweenTenants) {
  absl::Notification started, go;
  media_.on_load = [&] {
    if (!started.HasBeenNotified()) {
      started.Notify();
      go.WaitForNotification();
    }
  };
  VisualStore store = Store(100 * kClipBytes);
  std::thread first([&] { EXPECT_TRUE(store.Load("a", Clip("clip"), {}).ok()); });
  started.WaitForNotification();
  // Ends although the other tenant's load of the same bytes still hangs.
  EXPECT_TRUE(store.Load("b", Clip("clip"), {}).ok());
  go.Notify();
  first.join();
  EXPECT_EQ(media_.num_loads(), 2);
}

TEST_F(VisualStoreTest, AVisualLargerThanTheCacheIsNotKept) {
  VisualStore store = Store(kClipBytes - 1);
  ASSERT_TRUE(store.Load("t", Clip("a"), {}).ok());
  EXPECT_EQ(store.cached_bytes(), 0);
}

TEST_F(VisualStoreTest, AnUnhashedFileIsLoadedEveryTime) {
  VisualStore store = Store(100 * kClipBytes);
  VideoPart part = Clip("a");
  part.source.sha256 = {};
  ASSERT_TRUE(store.Load("t", part, {}).ok());
  ASSERT_TRUE(store.Load("t", part, {}).ok());
  EXPECT_EQ(media_.num_loads(), 2);
}

TEST_F(VisualStoreTest, EqualLoadsInFlightAreOne) {
  absl::Notification started, go;
  media_.on_load = [&] {
    started.Notify();  // a second load would notify twice and abort
    go.WaitForNotification();
  };
  VisualStore store = Store(0);
  std::vector<std::thread> threads;
  std::atomic<int> loaded{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const auto visual = store.Load("t", Clip("a"), {});
      ASSERT_TRUE(visual.ok()) << visual.status();
      EXPECT_NE(visual->visual.patches, nullptr);
      ++loaded;
    });
  }
  started.WaitForNotification();
  // Those that have not come yet when the first ends load again: wait until all follow.
  while (store.num_waiting() < 3) std::this_thread::yield();
  go.Notify();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(loaded.load(), 4);
  EXPECT_EQ(media_.num_loads(), 1);
  EXPECT_EQ(store.num_shared(), 3);
}

TEST_F(VisualStoreTest, AFollowerLoadsAgainWhenTheLeaderGivesUp) {
  absl::Notification started, go;
  std::atomic<int> loads{0};
  media_.on_load = [&] {
    if (loads++ > 0) return;
    started.Notify();
    go.WaitForNotification();
  };
  VisualStore store = Store(0);
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  std::thread leader([&] {
    LoadControl control;
    control.cancelled = cancelled;
    EXPECT_EQ(store.Load("t", Clip("a"), control).status().code(), absl::StatusCode::kCancelled);
  });
  started.WaitForNotification();
  std::thread follower([&] { EXPECT_TRUE(store.Load("t", Clip("a"), {}).ok()); });
  while (store.num_waiting() < 1) std::this_thread::yield();
  cancelled->store(true);
  go.Notify();
  leader.join();
  follower.join();
  EXPECT_EQ(media_.num_loads(), 2);
}

TEST_F(VisualStoreTest, AFollowerObeysItsOwnCancelAndDeadline) {
  absl::Notification started, go;
  media_.on_load = [&] {
    started.Notify();
    go.WaitForNotification();
  };
  VisualStore store = Store(0);
  std::thread leader([&] { EXPECT_TRUE(store.Load("t", Clip("a"), {}).ok()); });
  started.WaitForNotification();
  LoadControl control;
  control.cancelled = std::make_shared<std::atomic<bool>>(true);
  EXPECT_EQ(store.Load("t", Clip("a"), control).status().code(), absl::StatusCode::kCancelled);
  control.cancelled = nullptr;
  control.deadline = clock_.Monotonic();
  EXPECT_EQ(store.Load("t", Clip("a"), control).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  go.Notify();
  leader.join();
}

TEST_F(VisualStoreTest, AnErrorIsSharedAndNotKept) {
  VisualStore store = Store(100 * kClipBytes);
  EXPECT_EQ(ReasonOf(store.Load("t", Clip("bad"), {}).status()), "MEDIA_CORRUPT");
  EXPECT_EQ(ReasonOf(store.Load("t", Clip("bad"), {}).status()), "MEDIA_CORRUPT");
  EXPECT_EQ(media_.num_loads(), 2);
}

}  // namespace
}  // namespace videonsa
