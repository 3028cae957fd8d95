#include "client/report/timeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "absl/strings/str_split.h"
#include "client/format.h"

namespace videonsa::client {
namespace {

using ::testing::HasSubstr;

void AddBlock(proto::AskResult& result, int clip, double begin, double end, double share) {
  proto::BlockEvidence& block = *result.mutable_attention()->add_blocks();
  block.set_clip_index(clip);
  *block.mutable_range()->mutable_start_offset() = ToProto(absl::Seconds(begin));
  *block.mutable_range()->mutable_end_offset() = ToProto(absl::Seconds(end));
  block.set_share(share);
}

TEST(Timeline, WeightIsSpreadOverTheBlocksSeconds) {
  proto::AskResult result;
  result.add_visuals();
  AddBlock(result, 0, 0, 4, 0.4);
  AddBlock(result, 0, 2, 3, 0.5);
  AddBlock(result, 0, 29, 30, 0.05);
  AddBlock(result, -1, 0, 0, 0.05);
  const Evidence evidence = BuildEvidence(result, 76);
  ASSERT_EQ(evidence.clips.size(), 1u);
  const ClipTimeline& line = evidence.clips[0];
  EXPECT_EQ(line.bin, absl::Seconds(1));
  ASSERT_EQ(line.share.size(), 30u);
  EXPECT_NEAR(line.share[0], 0.1, 1e-12);
  EXPECT_NEAR(line.share[2], 0.6, 1e-12);
  EXPECT_NEAR(line.share[10], 0, 1e-12);
  EXPECT_NEAR(line.total, 0.95, 1e-12);
  EXPECT_NEAR(evidence.text_share, 0.05, 1e-12);
  EXPECT_EQ(evidence.moments[0].start, absl::Seconds(2));
}

TEST(Timeline, NothingIsLostForAnyShape) {
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    proto::AskResult result;
    result.add_visuals();
    const double length = std::uniform_real_distribution<>(0.2, 9000)(random);
    double sum = 0;
    for (int i = 0; i < 20; ++i) {
      const double begin = std::uniform_real_distribution<>(0, length)(random);
      const double end = std::min(length, begin + std::uniform_real_distribution<>(0, 30)(random));
      AddBlock(result, 0, begin, round % 7 == 0 ? begin : end, 0.05);
      sum += 0.05;
    }
    const int max_bins = std::uniform_int_distribution<>(1, 120)(random);
    const Evidence evidence = BuildEvidence(result, max_bins);
    ASSERT_EQ(evidence.clips.size(), 1u);
    const std::vector<double>& share = evidence.clips[0].share;
    EXPECT_LE(static_cast<int>(share.size()), max_bins + 1);
    EXPECT_NEAR(std::accumulate(share.begin(), share.end(), 0.0), sum, 1e-6) << round;
  }
}

TEST(Timeline, TextFitsEightyColumns) {
  proto::AskResult result;
  result.add_visuals();
  for (int second = 0; second < 3600; ++second) AddBlock(result, 0, second, second + 1, 1.0 / 3600);
  const std::string text = TimelineText(BuildEvidence(result, 76),
                                        {"a film with quite a long name.mp4"}, Painter(false), 80);
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    EXPECT_LE(DisplayWidth(line), 80) << line;
  }
  EXPECT_THAT(text, HasSubstr("█"));
  EXPECT_THAT(text, HasSubstr("most watched"));
}

TEST(Timeline, ServersIntervalsComeFirst) {
  proto::AskResult result;
  result.add_visuals();
  AddBlock(result, 0, 0, 10, 1);
  proto::AttendedInterval& interval = *result.mutable_attention()->add_intervals();
  *interval.mutable_range()->mutable_start_offset() = ToProto(absl::Seconds(3));
  *interval.mutable_range()->mutable_end_offset() = ToProto(absl::Seconds(5));
  interval.set_share(0.7);
  const Evidence evidence = BuildEvidence(result, 76);
  ASSERT_EQ(evidence.moments.size(), 1u);
  EXPECT_EQ(evidence.moments[0].start, absl::Seconds(3));
}

TEST(Timeline, NoEvidenceIsSaid) {
  EXPECT_THAT(TimelineText(BuildEvidence({}, 76), {}, Painter(false), 80), HasSubstr("none"));
}

}  // namespace
}  // namespace videonsa::client
