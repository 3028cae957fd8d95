#include "runtime/ops/cpu_backend.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/common/bf16.h"
#include "kernels/reference/transformer.h"
#include "runtime/ops/half.h"

namespace videonsa {
namespace {

TEST(Half, EveryNumberConverts) {
  // IEEE 754 binary16: sign, 5 bits of exponent with bias 15, 10 bits of fraction.
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const double fraction = bits & 1023;
    const double sign = bits & 0x8000 ? -1 : 1;
    const float value = FromHalf(static_cast<uint16_t>(bits));
    if (exponent == 31) {
      ASSERT_EQ(std::isnan(value), fraction != 0) << bits;
      if (fraction == 0) {
        ASSERT_EQ(value, sign * INFINITY) << bits;
      }
    } else if (exponent == 0) {
      ASSERT_EQ(value, sign * fraction * std::pow(2.0, -24)) << bits;
    } else {
      ASSERT_EQ(value, sign * (1 + fraction / 1024) * std::pow(2.0, exponent - 15)) << bits;
    }
  }
}

TEST(LoadFloats, ReadsEveryTypeAtAnyAddress) {
  const float values[3] = {1.5f, -2.0f, 0.25f};
  const uint16_t half[3] = {0x3E00, 0xC000, 0x3400};
  const uint16_t bf16[3] = {RoundToBf16(1.5f), RoundToBf16(-2.0f), RoundToBf16(0.25f)};
  const std::pair<DType, const void*> sources[] = {
      {DType::kF32, values}, {DType::kF16, half}, {DType::kBF16, bf16}};
  for (const auto& [dtype, source] : sources) {
    std::vector<char> odd(16);
    std::memcpy(odd.data() + 1, source, 3 * SizeOf(dtype));
    float out[2];
    LoadFloats(MatrixView(odd.data() + 1, dtype, 1, 3), 1, 2, out);
    EXPECT_EQ(out[0], -2.0f);
    EXPECT_EQ(out[1], 0.25f);
  }
}

std::vector<float> Random(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = FromBf16(RoundToBf16(uniform(random)));
  return values;
}

TEST(CpuBackend, StacksLinearParts) {
  // Part borders fall inside panels of 64.
  CpuBackend backend(DType::kF32, 2);
  const int64_t k = 24, sizes[3] = {40, 70, 5};
  std::vector<std::vector<float>> weights, biases;
  std::vector<LinearPart> parts;
  for (uint64_t i = 0; i < 3; ++i) {
    weights.push_back(Random(static_cast<size_t>(sizes[i] * k), i));
    biases.push_back(Random(static_cast<size_t>(sizes[i]), 10 + i));
    parts.push_back({MatrixView(weights[i].data(), DType::kF32, sizes[i], k),
                     MatrixView(biases[i].data(), DType::kF32, sizes[i], 1)});
  }
  const auto packed = backend.PackLinear(parts);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ((*packed)->out_features(), 115);
  const std::vector<float> x = Random(static_cast<size_t>(3 * k), 99);
  std::vector<float> all, all_bias, out(3 * 115);
  for (int i = 0; i < 3; ++i) {
    all.insert(all.end(), weights[i].begin(), weights[i].end());
    all_bias.insert(all_bias.end(), biases[i].begin(), biases[i].end());
  }
  backend.Linear(MatrixView(const_cast<float*>(x.data()), DType::kF32, 3, k), **packed,
                 MatrixView(out.data(), DType::kF32, 3, 115));
  const std::vector<double> expected = reference::Linear(x, all, all_bias, 3, 115, k);
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 1e-5) << i;
}

TEST(CpuBackend, EmbedsRowsOfTheTable) {
  for (DType type : {DType::kF32, CpuBackend::AutoComputeType()}) {
    CpuBackend backend(type, 2);
    const std::vector<float> table = Random(130 * 48, 1);
    const auto packed = backend.PackLinear(
        {{LinearPart{MatrixView(const_cast<float*>(table.data()), DType::kF32, 130, 48), {}}}});
    ASSERT_TRUE(packed.ok());
    const std::vector<int32_t> ids = {129, 0, 64, 63, 129};
    std::vector<float> out(ids.size() * 48);
    backend.Embed(ids, **packed, MatrixView(out.data(), DType::kF32, 5, 48));
    for (size_t row = 0; row < ids.size(); ++row) {
      for (size_t i = 0; i < 48; ++i) {
        ASSERT_EQ(out[row * 48 + i], table[static_cast<size_t>(ids[row]) * 48 + i]);
      }
    }
  }
}

TEST(CpuBackend, CopiesRowsBetweenTypes) {
  CpuBackend backend(DType::kF32, 2);
  std::vector<float> x = Random(20 * 7, 2), back(20 * 7);
  std::vector<uint16_t> narrow(20 * 7);
  const TensorView from = MatrixView(x.data(), DType::kF32, 20, 7);
  backend.CopyRows(from, {}, MatrixView(narrow.data(), DType::kBF16, 20, 7));
  backend.CopyRows(MatrixView(narrow.data(), DType::kBF16, 20, 7), {},
                   MatrixView(back.data(), DType::kF32, 20, 7));
  EXPECT_EQ(back, x);  // the values are exact in bf16
  const std::vector<int32_t> order = {19, 3, 3};
  std::vector<float> picked(3 * 7);
  backend.CopyRows(from, order, MatrixView(picked.data(), DType::kF32, 3, 7));
  for (size_t row = 0; row < 3; ++row) {
    for (size_t i = 0; i < 7; ++i) {
      EXPECT_EQ(picked[row * 7 + i], x[static_cast<size_t>(order[row]) * 7 + i]);
    }
  }
}

TEST(CpuBackend, RopeAnglesFollowTheirAxis) {
  CpuBackend backend(DType::kF32, 2);
  const int32_t positions[3][2] = {{1, 10}, {2, 20}, {3, 30}};
  const float frequencies[] = {1.0f, 0.5f, 0.25f};
  const int axes[] = {0, 2, 1};
  float cos[6], sin[6];
  backend.RopeAngles({{positions[0], positions[1], positions[2]}, 2, frequencies, axes},
                     {MatrixView(cos, DType::kF32, 2, 3), MatrixView(sin, DType::kF32, 2, 3)});
  const float angles[6] = {1.0f, 1.5f, 0.5f, 10.0f, 15.0f, 5.0f};
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(cos[i], std::cos(angles[i]));
    EXPECT_EQ(sin[i], std::sin(angles[i]));
  }
}

TEST(CpuBackendDeathTest, WrongShapesAreOurBugs) {
  CpuBackend backend(DType::kF32, 1);
  std::vector<float> w(64), x(16), out(16);
  const auto packed =
      backend.PackLinear({{LinearPart{MatrixView(w.data(), DType::kF32, 8, 8), {}}}});
  ASSERT_TRUE(packed.ok());
  EXPECT_DEATH(backend.Linear(MatrixView(x.data(), DType::kF32, 2, 7), **packed,
                              MatrixView(out.data(), DType::kF32, 2, 8)),
               "in_features");
  const std::vector<int32_t> ids = {8};
  EXPECT_DEATH(backend.Embed(ids, **packed, MatrixView(out.data(), DType::kF32, 1, 8)), "token 8");
}

}  // namespace
}  // namespace videonsa
