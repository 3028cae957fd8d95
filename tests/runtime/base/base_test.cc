#include <thread>

#include "gtest/gtest.h"
#include "runtime/base/bounded_queue.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"

namespace videonsa {
namespace {

TEST(Error, PayloadSurvivesAnyBytes) {
  ErrorInfo info{.reason = "TOO_BIG",
                 .metadata = {{"limit", "10"}, {"odd", "a:b\n3:x"}},
                 .field = "question.turns[0]",
                 .retry_after = absl::Milliseconds(250)};
  const absl::Status status = MakeError(absl::StatusCode::kResourceExhausted, info, "12 of 10");
  const auto back = GetErrorInfo(status);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->reason, info.reason);
  EXPECT_EQ(back->field, info.field);
  EXPECT_EQ(back->metadata, info.metadata);
  EXPECT_EQ(back->retry_after, info.retry_after);
  EXPECT_FALSE(GetErrorInfo(absl::InternalError("plain")).has_value());
}

absl::StatusOr<int> Half(int x) {
  if (x % 2) return InvalidField("x", "odd");
  return x / 2;
}
absl::StatusOr<int> Quarter(int x) {
  VNSA_ASSIGN_OR_RETURN(const int half, Half(x));
  return Half(half);
}

TEST(StatusMacros, PassErrorsUp) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(GetErrorInfo(Quarter(6).status())->field, "x");
}

TEST(CheckDeathTest, PrintsContext) {
  const int pages = 3;
  EXPECT_DEATH(VNSA_CHECK_EQ(pages, 4) << "pages lost", "pages.*3 vs 4.*pages lost");
}

TEST(BoundedQueue, RefusesWhenFullAndDrainsAfterClose) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  std::thread pusher([&] { EXPECT_TRUE(queue.Push(4)); });
  EXPECT_EQ(queue.Pop(), 1);
  pusher.join();
  queue.Close();
  EXPECT_FALSE(queue.Push(5));
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(), 4);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(Hash, KnownVectors) {
  EXPECT_EQ(HexOf(Sha256Of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c("56789", Crc32c("1234")), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
}

// RFC 4231, test cases 1 and 2, and one whose key is longer than a block.
TEST(Hash, HmacOfTheStandard) {
  EXPECT_EQ(HexOf(HmacSha256(std::string(20, '\x0b'), "Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(HexOf(HmacSha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(HexOf(HmacSha256(std::string(131, '\xaa'),
                             "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(FakeClock, WallClockMayJumpAlone) {
  FakeClock clock;
  clock.Advance(absl::Seconds(1));
  clock.JumpWallClock(absl::Hours(-1));
  EXPECT_EQ(clock.Monotonic(), absl::Seconds(1));
  EXPECT_LT(clock.Now(), absl::UnixEpoch());
}

}  // namespace
}  // namespace videonsa
