// Row-wise kernels against their oracles, over every attainable SIMD target.
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "kernels/common/bf16.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/vision_attention.h"
#include "kernels/reference/transformer.h"

namespace videonsa {
namespace {

// A handful of fp32 roundings of values near 1.
constexpr double kTolerance = 2e-6;

std::vector<float> Random(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

template <typename Body>
void ForEachTarget(const Body& body) {
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(RmsNorm, MatchesTheOracleAtEveryLength) {
  ForEachTarget([] {
    for (int64_t columns = 1; columns <= 70; ++columns) {
      const int64_t rows = 3, stride = columns + 1;
      const std::vector<float> x = Random(static_cast<size_t>(rows * columns), 1);
      const std::vector<float> weight = Random(static_cast<size_t>(columns), 2);
      std::vector<float> spaced(static_cast<size_t>(rows * stride), NAN), out(spaced.size(), 9);
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(&x[static_cast<size_t>(r * columns)], columns,
                    &spaced[static_cast<size_t>(r * stride)]);
      }
      std::vector<uint16_t> out16(static_cast<size_t>(rows * columns));
      RmsNorm({spaced.data(), stride, weight.data(), 1e-6f, rows, columns, out.data(), DType::kF32,
               stride});
      RmsNorm({spaced.data(), stride, weight.data(), 1e-6f, rows, columns, out16.data(),
               DType::kBF16, columns});
      const std::vector<double> expected = reference::RmsNorm(x, weight, 1e-6);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          const double want = expected[static_cast<size_t>(r * columns + c)];
          const float have = out[static_cast<size_t>(r * stride + c)];
          ASSERT_NEAR(have, want, kTolerance * (1 + std::fabs(want))) << columns;
          ASSERT_EQ(out16[static_cast<size_t>(r * columns + c)], RoundToBf16(have));
        }
        ASSERT_EQ(out[static_cast<size_t>(r * stride + columns)], 9);
      }
    }
  });
}

TEST(ConvertRows, RoundsAndReorders) {
  ForEachTarget([] {
    const int64_t rows = 4, columns = 37;
    std::vector<float> x = Random(static_cast<size_t>(rows * columns), 3);
    x[5] = NAN;
    x[6] = INFINITY;
    x[7] = -0.0f;
    const int32_t order[] = {2, 0, 3, 0};
    std::vector<uint16_t> out(x.size());
    ConvertRows({x.data(), columns, order, rows, columns, out.data(), DType::kBF16, columns});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        ASSERT_EQ(out[static_cast<size_t>(r * columns + c)],
                  RoundToBf16(x[static_cast<size_t>(order[r] * columns + c)]));
      }
    }
  });
}

TEST(Rope, MatchesTheOracle) {
  ForEachTarget([] {
    for (int head_dim : {16, 64, 80, 128}) {
      const int64_t rows = 3, heads = 2, half = head_dim / 2;
      const std::vector<float> x = Random(static_cast<size_t>(rows * heads * head_dim), 4);
      const std::vector<float> angles = Random(static_cast<size_t>(rows * half), 5);
      std::vector<float> cos, sin;
      for (float angle : angles) {
        cos.push_back(std::cos(angle));
        sin.push_back(std::sin(angle));
      }
      std::vector<float> rotated = x;
      Rope({rotated.data(), heads * head_dim, cos.data(), sin.data(), nullptr, rows,
            static_cast<int>(heads), head_dim});
      const std::vector<double> expected =
          reference::Rope(x, std::vector<double>(angles.begin(), angles.end()), heads, head_dim);
      for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(rotated[i], expected[i], 1e-6) << i;
    }
  });
}

struct VisionCase {
  std::vector<int32_t> segments;
  int heads;
  int head_dim;
};

TEST(VisionAttention, MatchesTheOracle) {
  ThreadPool pool(3);
  const VisionCase cases[] = {{{0, 1}, 1, 16},
                              {{0, 64}, 2, 16},
                              {{0, 4, 68, 132, 133}, 2, 80},
                              {{0, 200, 263}, 1, 128},
                              {{0, 63, 128, 193}, 3, 64}};
  ForEachTarget([&] {
    for (const VisionCase& c : cases) {
      const int64_t rows = c.segments.back(), width = int64_t{c.heads} * c.head_dim;
      const std::vector<float> qkv = Random(static_cast<size_t>(rows * 3 * width), 6);
      const float scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
      const std::vector<double> expected =
          reference::VisionAttention(qkv, c.segments, c.heads, c.head_dim, scale);
      int longest = 0;
      for (size_t i = 1; i < c.segments.size(); ++i) {
        longest = std::max(longest, c.segments[i] - c.segments[i - 1]);
      }
      std::vector<char> scratch(VisionAttentionScratchBytes(3, longest, c.head_dim) + 64, -1);
      char* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
      for (bool bf16 : {false, true}) {
        std::vector<float> out(static_cast<size_t>(rows * width));
        VisionAttention(
            {qkv.data(), 3 * width, c.segments.data(), static_cast<int>(c.segments.size()) - 1,
             c.heads, c.head_dim, scale, bf16, out.data(), DType::kF32, width},
            aligned, pool);
        // bf16 keeps 8 bits of each operand; errors of single products average out.
        const double tolerance = bf16 ? 0.03 : 1e-5;
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(out[i], expected[i], tolerance) << "rows " << rows << " at " << i;
        }
      }
    }
  });
}

}  // namespace
}  // namespace videonsa
