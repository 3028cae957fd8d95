#include "runtime/media/frame_sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "runtime/base/error.h"

namespace videonsa {
namespace {

using testing::ElementsAre;

std::string ReasonOf(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  return info ? info->reason : "";
}

TEST(SpreadIndicesTest, RoundsAsTheReference) {
  EXPECT_THAT(SpreadIndices(0, 1799, 32),
              ElementsAre(0, 58, 116, 174, 232, 290, 348, 406, 464, 522, 580, 638, 696, 754, 812,
                          870, 929, 987, 1045, 1103, 1161, 1219, 1277, 1335, 1393, 1451, 1509, 1567,
                          1625, 1683, 1741, 1799));
  EXPECT_THAT(SpreadIndices(0, 9, 4), ElementsAre(0, 3, 6, 9));
  EXPECT_THAT(SpreadIndices(5, 5, 1), ElementsAre(5));
}

TEST(CountFramesTest, FollowsTheRules) {
  const auto count = [](double fps, int max_frames) {
    return CountFrames({.fps = fps, .max_frames = max_frames}, 1800, 30, kLmmsEvalFrames).value();
  };
  EXPECT_EQ(count(1, 32), 32);
  EXPECT_EQ(count(1, 64), 60);
  EXPECT_EQ(count(4, 512), 240);
  EXPECT_EQ(count(0.001, 64), 4);  // never fewer than four if there are
  EXPECT_EQ(count(1000, 4000), 1800);
  EXPECT_EQ(CountFrames({.num_frames = 5}, 1800, 30, kLmmsEvalFrames).value(), 4);
  EXPECT_EQ(CountFrames({.max_frames = 9}, 1800, 30, kLmmsEvalFrames).value(), 8);
  EXPECT_EQ(CountFrames({.max_frames = 9}, 1800, 30, kQwenVlUtilsFrames).value(), 8);
  EXPECT_EQ(CountFrames({.max_frames = 90}, 1800, 30, kLmmsEvalFrames).value(), 90);
  EXPECT_EQ(CountFrames({.max_frames = 900}, 1800, 30, kQwenVlUtilsFrames).value(), 120);
  EXPECT_EQ(CountFrames({}, 3, 30, kLmmsEvalFrames).value(), 2);
  EXPECT_FALSE(CountFrames({}, 1, 30, kLmmsEvalFrames).ok());
  EXPECT_FALSE(CountFrames({.fps = 1, .max_frames = 1}, 100, 30, kLmmsEvalFrames).ok());
  EXPECT_FALSE(CountFrames({.num_frames = 200}, 100, 30, kLmmsEvalFrames).ok());
}

TEST(ChooseFramesTest, TakesARange) {
  const VideoSampling sampling{
      .fps = 2.0, .range_begin = absl::Seconds(10), .range_end = absl::Seconds(20)};
  const FrameChoice choice = ChooseFrames(sampling, 900, 30, 2.0, 768).value();
  EXPECT_EQ(choice.indices.front(), 300);
  EXPECT_EQ(choice.indices.back(), 600);
  EXPECT_EQ(choice.indices.size(), 20u);  // 301 frames at 30 a second, rounded down to even
  EXPECT_NEAR(choice.sample_fps, 20.0 / 301 * 30, 1e-12);
}

TEST(ChooseFramesTest, GivesTheOnlyFrame) {
  const FrameChoice choice = ChooseFrames({}, 1, 25, 2.0, 768).value();
  EXPECT_THAT(choice.indices, ElementsAre(0));
}

TEST(ChooseFramesTest, NeverChoosesAFrameTwice) {
  for (int64_t total = 2; total < 600; ++total) {
    const auto indices = ChooseFrames({.fps = 1000.0}, total, 30, 2.0, 768).value().indices;
    for (size_t i = 1; i < indices.size(); ++i) ASSERT_LT(indices[i - 1], indices[i]) << total;
    ASSERT_LT(indices.back(), total);
  }
}

TEST(ChooseFramesTest, RefusesWhatMakesNoSense) {
  const auto reason = [](const VideoSampling& sampling) {
    return ReasonOf(ChooseFrames(sampling, 900, 30, 2.0, 768).status());
  };
  EXPECT_EQ(reason({.fps = 0.0}), "FIELD_INVALID");
  EXPECT_EQ(reason({.fps = -1.0}), "FIELD_INVALID");
  EXPECT_EQ(reason({.fps = std::numeric_limits<double>::infinity()}), "FIELD_INVALID");
  EXPECT_EQ(reason({.fps = std::numeric_limits<double>::quiet_NaN()}), "FIELD_INVALID");
  EXPECT_EQ(reason({.fps = 1.0, .num_frames = 8}), "FIELD_INVALID");
  EXPECT_EQ(reason({.num_frames = 1}), "FIELD_INVALID");
  EXPECT_EQ(reason({.max_frames = 1}), "FIELD_INVALID");
  EXPECT_EQ(reason({.num_frames = 769}), "TOO_MANY_FRAMES");
  EXPECT_EQ(reason({.max_frames = 769}), "TOO_MANY_FRAMES");
  EXPECT_EQ(reason({.range_begin = absl::Seconds(20), .range_end = absl::Seconds(10)}),
            "FIELD_INVALID");
  EXPECT_EQ(reason({.range_begin = absl::Seconds(500)}), "FIELD_INVALID");
}

}  // namespace
}  // namespace videonsa
