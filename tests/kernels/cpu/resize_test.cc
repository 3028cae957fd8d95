#include "kernels/cpu/resize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <tuple>

#include "kernels/reference/resize.h"

namespace videonsa {
namespace {

constexpr double kTolerance = 1e-3;  // of 255, for float32 weights and sums against double

std::vector<uint8_t> Noise(int height, int width) {
  std::mt19937 random(static_cast<unsigned>(height * 1000 + width));
  std::vector<uint8_t> rgb(size_t{3} * height * width);
  for (uint8_t& value : rgb) value = static_cast<uint8_t>(random());
  return rgb;
}

std::vector<double> Channel(const std::vector<uint8_t>& rgb, int c) {
  std::vector<double> out;
  for (size_t i = c; i < rgb.size(); i += 3) out.push_back(rgb[i]);
  return out;
}

// in height, in width, out height, out width
using Sizes = std::tuple<int, int, int, int>;

class ResizeTest : public testing::TestWithParam<Sizes> {};

TEST_P(ResizeTest, FloatMeetsTheOracle) {
  const auto [ih, iw, oh, ow] = GetParam();
  const std::vector<uint8_t> rgb = Noise(ih, iw);
  RgbxImage source, out, rounded;
  source.Resize(ih, iw);
  for (size_t i = 0; i < rgb.size(); ++i) source.values[i / 3 * 4 + i % 3] = rgb[i];
  BicubicResizer resizer(ih, iw, oh, ow);
  resizer.Resize(source, &out);
  resizer.ResizeRounded(rgb.data(), &rounded);
  ASSERT_EQ(out.height, oh);
  ASSERT_EQ(out.width, ow);
  for (int c = 0; c < 3; ++c) {
    const auto expected = reference::ResizeBicubic(Channel(rgb, c), ih, iw, oh, ow);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(out.values[4 * i + c], expected[i], kTolerance) << "pixel " << i;
      const double whole = std::clamp(std::nearbyint(out.values[4 * i + c]), 0.0f, 255.0f);
      ASSERT_EQ(rounded.values[4 * i + c], whole) << "pixel " << i;
    }
  }
}

TEST_P(ResizeTest, FixedPointIsWithinOneStepPerPass) {
  const auto [ih, iw, oh, ow] = GetParam();
  const std::vector<uint8_t> rgb = Noise(ih, iw);
  for (const auto rules : {FixedPointRules::kPillow, FixedPointRules::kTorchUint8}) {
    const auto out = ResizeFixedPoint(rgb.data(), ih, iw, oh, ow, rules);
    ASSERT_EQ(out.size(), size_t{3} * oh * ow);
    // The picture between the passes is rounded and clipped, which the oracle does not do: compare
    // where one axis stays.
    if (ih != oh && iw != ow) continue;
    for (int c = 0; c < 3; ++c) {
      const auto expected = reference::ResizeBicubic(Channel(rgb, c), ih, iw, oh, ow);
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(out[3 * i + c], std::clamp(expected[i], 0.0, 255.0), 0.6) << "pixel " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ResizeTest,
                         testing::Values(Sizes{40, 60, 28, 28}, Sizes{17, 31, 56, 84},
                                         Sizes{30, 28, 28, 28}, Sizes{28, 61, 28, 28},
                                         Sizes{28, 28, 28, 28}, Sizes{1, 1, 28, 28},
                                         Sizes{121, 5, 28, 56}, Sizes{64, 64, 56, 64}));

TEST(ResizeAxisTest, WeightsSumToOneAndStayInside) {
  for (const auto& [in, out] : {std::pair{1920, 616}, std::pair{10, 504}, std::pair{121, 392}}) {
    const ResizeAxis axis = MakeBicubicAxis(in, out);
    for (int i = 0; i < out; ++i) {
      ASSERT_GE(axis.first[i], 0);
      ASSERT_GE(axis.count[i], 1);
      ASSERT_LE(axis.count[i], axis.max_count);
      ASSERT_LE(axis.first[i] + axis.count[i], in);
      double sum = 0;
      for (int j = 0; j < axis.count[i]; ++j) sum += axis.weights[size_t(axis.max_count) * i + j];
      ASSERT_NEAR(sum, 1.0, 1e-5);
    }
  }
}

TEST(ResizeFixedPointTest, PillowStartsWithTheHeightWhereThatIsLess) {
  // 200 x 150 to 196 x 140: lines fall by 10, columns by 4.
  const std::vector<uint8_t> rgb = Noise(150, 200);
  const auto pillow = [&](const std::vector<uint8_t>& in, int ih, int iw, int oh, int ow) {
    return ResizeFixedPoint(in.data(), ih, iw, oh, ow, FixedPointRules::kPillow);
  };
  EXPECT_EQ(pillow(rgb, 150, 200, 140, 196),
            pillow(pillow(rgb, 150, 200, 140, 200), 140, 200, 140, 196));
  EXPECT_EQ(pillow(rgb, 150, 200, 140, 150),
            pillow(pillow(rgb, 150, 200, 150, 150), 150, 150, 140, 150));
}

}  // namespace
}  // namespace videonsa
