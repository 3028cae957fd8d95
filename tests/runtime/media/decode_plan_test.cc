#include "runtime/media/decoder/decode_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/media/decoder/reference_order.h"

namespace videonsa::decoder {
namespace {

using testing::Each;
using testing::ElementsAre;

constexpr auto kSkip = DecodePlan::kSkip;
constexpr auto kReference = DecodePlan::kReference;
constexpr auto kWanted = DecodePlan::kWanted;

// `groups` closed groups of `length` frames in order.
std::vector<PacketInfo> ClosedGroups(int groups, int length) {
  std::vector<PacketInfo> packets;
  for (int i = 0; i < groups * length; ++i) packets.push_back({i, 1, i % length == 0});
  return packets;
}

TEST(DecodePlanTest, SkipsGroupsAndTailsThatNothingWants) {
  const auto packets = ClosedGroups(4, 20);
  const DecodePlan plan = MakeDecodePlan(packets, {2, 43}, /*trusts_key_flags=*/true);
  EXPECT_TRUE(plan.by_pts);
  for (int i = 0; i < 80; ++i) {
    const bool wanted = i == 2 || i == 43;
    const bool needed = i < 2 || (i >= 40 && i < 43);
    EXPECT_EQ(plan.actions[i], wanted ? kWanted : needed ? kReference : kSkip) << i;
  }
  EXPECT_TRUE(plan.restart[40]);
  EXPECT_FALSE(plan.restart[0]);
}

TEST(DecodePlanTest, DecodesAllThatComesBeforeWithoutKeyFlags) {
  const DecodePlan plan = MakeDecodePlan(ClosedGroups(4, 20), {43}, /*trusts_key_flags=*/false);
  EXPECT_THAT(plan.restart, Each(false));
  EXPECT_EQ(plan.actions[0], kReference);
  EXPECT_EQ(plan.actions[43], kWanted);
}

TEST(DecodePlanTest, KeepsTheGroupThatLeadingPicturesReferTo) {
  // Group 2 starts at 20, but 18 and 19 come after it in the file.
  auto packets = ClosedGroups(2, 20);
  packets[18] = {20, 1, true};
  packets[19] = {18, 1, false};
  packets[20] = {19, 1, false};
  const DecodePlan plan = MakeDecodePlan(packets, {19}, /*trusts_key_flags=*/true);
  for (int i = 0; i < 18; ++i) EXPECT_EQ(plan.actions[i], kReference) << i;
  EXPECT_EQ(plan.actions[18], kReference);
  EXPECT_EQ(plan.actions[20], kWanted);
  EXPECT_THAT(plan.restart, Each(false));
}

TEST(DecodePlanTest, CountsWhereTimestampsRepeat) {
  auto packets = ClosedGroups(1, 10);
  packets[4].pts = packets[3].pts;
  const DecodePlan plan = MakeDecodePlan(packets, {2}, /*trusts_key_flags=*/true);
  EXPECT_FALSE(plan.by_pts);
  EXPECT_THAT(plan.actions, Each(kWanted));
}

// A clip whose second picture group is open, as published with decord's answer for it.
TEST(ReferenceFramesTest, OpenGroups) {
  const std::vector<PacketInfo> packets = {
      {0, 1, true}, {1, 1, false}, {2, 1, true}, {4, 1, true},  {3, 1, false},
      {6, 1, true}, {5, 1, false}, {8, 1, true}, {7, 1, false}, {9, 1, false}};
  const std::vector<int64_t> dts = {-2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<int64_t> sorted;
  for (int i = 0; i < 10; ++i) sorted.push_back(i);
  // As the mov demuxer: by decode time, two frames before the shown one.
  const auto seek = [&](int64_t pts, bool backward) -> int64_t {
    int64_t found = -1;
    for (int i = 0; i < 10; ++i) {
      if (!packets[i].key) continue;
      if (backward && dts[i] <= pts - 2) found = i;
      if (!backward && dts[i] >= pts - 2) return i;
    }
    return found;
  };
  EXPECT_TRUE(MissesFrames(packets, /*shows_leading=*/false));
  EXPECT_FALSE(MissesFrames(ClosedGroups(3, 5), /*shows_leading=*/false));
  EXPECT_FALSE(MissesFrames(packets, /*shows_leading=*/true));
  const auto read = [&](const std::vector<int64_t>& indices) {
    return ReferenceFrames({packets, sorted}, indices, seek);
  };
  EXPECT_THAT(read({0, 3, 6, 9}), ElementsAre(0, 4, 7, 7));
  EXPECT_THAT(read({0, 5}), ElementsAre(0, 6));
  EXPECT_THAT(read({2}), ElementsAre(2));
  EXPECT_THAT(read({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

}  // namespace
}  // namespace videonsa::decoder
