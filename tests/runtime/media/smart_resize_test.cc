#include "runtime/media/smart_resize.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "runtime/media/visual_size.h"

namespace videonsa {
namespace {

constexpr auto kReleased = SmartResizeRules::kReleased;

TEST(SmartResizeTest, PublishedValues) {
  EXPECT_EQ(SmartResize({720, 1280}, {200704, 50176}, kReleased).value(), (FrameSize{168, 280}));
  EXPECT_EQ(SmartResize({168, 280}, {200704, 50176}, kReleased).value(), (FrameSize{364, 588}));
  EXPECT_EQ(SmartResize({42, 70}, {1, 1e9}, kReleased).value(), (FrameSize{56, 56}));
  EXPECT_EQ(SmartResize({14, 141}, {3136, 50176}, kReleased).value(), (FrameSize{28, 140}));
  EXPECT_EQ(SmartResize({14, 141}, {3136, 50176}, SmartResizeRules::kTransformers).value(),
            (FrameSize{28, 196}));
}

TEST(SmartResizeTest, Refusals) {
  EXPECT_EQ(GetErrorInfo(SmartResize({1, 201}, {1, 1e9}, kReleased).status())->reason,
            "MEDIA_UNSUPPORTED");
  EXPECT_EQ(GetErrorInfo(SmartResize({22, 3360}, {50176, 50176}, SmartResizeRules::kUtils).status())
                ->reason,
            "MEDIA_UNSUPPORTED");
  EXPECT_EQ(
      GetErrorInfo(SmartResize({64, 64}, {200, 100}, SmartResizeRules::kUtils).status())->reason,
      "FIELD_INVALID");
}

TEST(VisualSizeTest, SecondResizeOfTheEvaluation) {
  const MediaOptions options;
  const auto size = [&](FrameSize source, int64_t max_pixels, int64_t frames) {
    return VideoSize(source, frames, PreprocessMode::kLmmsEval, {.max = max_pixels}, options)
        .value();
  };
  // height, width, max_pixels, frames -> A -> B, from the published table
  EXPECT_EQ(size({720, 1280}, 50176, 32).first, (FrameSize{168, 280}));
  EXPECT_EQ(size({720, 1280}, 50176, 32).final, (FrameSize{364, 588}));
  EXPECT_EQ(size({720, 1280}, 401408, 32).final, (FrameSize{448, 840}));
  EXPECT_EQ(size({720, 1280}, 401408, 1000).first, (FrameSize{336, 588}));
  EXPECT_EQ(size({720, 1280}, 401408, 1000).final, (FrameSize{364, 616}));
  EXPECT_EQ(size({240, 320}, 100352, 32).first, (FrameSize{392, 532}));
  EXPECT_EQ(size({240, 320}, 100352, 32).final, (FrameSize{252, 364}));
  EXPECT_EQ(size({480, 640}, 1605632, 1000).final, (FrameSize{420, 532}));
}

TEST(VisualSizeTest, RefusesLimitsOutOfRange) {
  const MediaOptions options;
  for (const RequestedPixels requested : {RequestedPixels{.min = 0}, RequestedPixels{.max = -1},
                                          RequestedPixels{.max = int64_t{1} << 40}}) {
    const auto size = VideoSize({64, 64}, 4, PreprocessMode::kLmmsEval, requested, options);
    EXPECT_EQ(GetErrorInfo(size.status())->reason, "FIELD_INVALID");
  }
}

}  // namespace
}  // namespace videonsa
