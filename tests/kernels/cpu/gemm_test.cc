#include "kernels/cpu/gemm.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/common/bf16.h"
#include "kernels/reference/transformer.h"

namespace videonsa {
namespace {

// Both operands are exact in bf16, so what is left is the rounding of k fp32 additions.
constexpr double kSumTolerance = 1e-6;

struct Operands {
  int64_t m, n, k;
  std::vector<float> x, w, bias;
  std::vector<uint16_t> x16;

  Operands(int64_t m, int64_t n, int64_t k, uint64_t seed) : m(m), n(n), k(k) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    const auto value = [&] { return FromBf16(RoundToBf16(uniform(random))); };
    for (int64_t i = 0; i < m * k; ++i) x.push_back(value());
    for (int64_t i = 0; i < n * k; ++i) w.push_back(value());
    for (int64_t i = 0; i < n; ++i) bias.push_back(uniform(random));
    for (float v : x) x16.push_back(RoundToBf16(v));
  }
  const void* Input(DType dtype) const {
    return dtype == DType::kBF16 ? static_cast<const void*>(x16.data()) : x.data();
  }
};

class Packed {
 public:
  Packed(DType dtype, int64_t n, int64_t k, const std::vector<float>& w)
      : bytes_(static_cast<size_t>(PackedBytes(dtype, n, k)) + 64) {
    char* data = bytes_.data();
    data += (64 - reinterpret_cast<uintptr_t>(data) % 64) % 64;
    matrix_ = {dtype, n, k, data};
    for (int64_t row = 0; row < n; ++row) PackRow(matrix_, row, w.data() + row * k);
  }
  const PackedMatrix& matrix() const { return matrix_; }

 private:
  std::vector<char> bytes_;
  PackedMatrix matrix_;
};

struct Shape {
  int64_t m, n, k;
};
const Shape kShapes[] = {{1, 1, 1},      {1, 64, 64},    {3, 65, 33},
                         {7, 84, 448},   {64, 160, 64},  {129, 64, 1176},
                         {33, 1000, 40}, {300, 130, 96}, {2, 640, 2816}};

std::vector<DType> Types() {
  std::vector<DType> types = {DType::kF32};
  if (Gemm::MachineHasBf16()) types.push_back(DType::kBF16);
  return types;
}

std::vector<float> RunGemm(Gemm& gemm, const Operands& o, const Packed& w, GemmEpilogue epilogue,
                           int64_t m) {
  std::vector<float> out(static_cast<size_t>(m * o.n), 0.5f);
  gemm.Run(GemmParams{o.Input(w.matrix().dtype), o.k, m, w.matrix(), o.bias.data(), epilogue,
                      out.data(), DType::kF32, o.n});
  return out;
}

TEST(Gemm, MatchesTheOracle) {
  ThreadPool pool(3);
  for (GemmEngine engine : {GemmEngine::kAuto, GemmEngine::kPortable}) {
    Gemm gemm(pool, engine);
    for (const Shape& s : kShapes) {
      const Operands o(s.m, s.n, s.k, 7);
      const std::vector<double> expected = reference::Linear(o.x, o.w, o.bias, s.m, s.n, s.k);
      for (DType dtype : Types()) {
        if (engine == GemmEngine::kPortable && dtype != DType::kF32) continue;
        const Packed w(dtype, s.n, s.k, o.w);
        const double tolerance = kSumTolerance * static_cast<double>(s.k) + 1e-6;
        const std::vector<float> stored = RunGemm(gemm, o, w, GemmEpilogue::kStore, s.m);
        const std::vector<float> added = RunGemm(gemm, o, w, GemmEpilogue::kAdd, s.m);
        const std::vector<float> bent = RunGemm(gemm, o, w, GemmEpilogue::kGelu, s.m);
        for (size_t i = 0; i < expected.size(); ++i) {
          ASSERT_NEAR(stored[i], expected[i], tolerance) << s.m << " " << s.n << " " << s.k;
          ASSERT_NEAR(added[i], expected[i] + 0.5, tolerance);
          ASSERT_NEAR(bent[i], reference::Gelu(expected[i]), tolerance + 2e-6);
        }
      }
    }
  }
}

TEST(Gemm, SwiGluMatchesTheOracle) {
  ThreadPool pool(2);
  Gemm gemm(pool);
  for (const Shape& s : kShapes) {
    const Operands gate(s.m, s.n, s.k, 1), up(s.m, s.n, s.k, 2);
    for (DType dtype : Types()) {
      const Packed gate_w(dtype, s.n, s.k, gate.w), up_w(dtype, s.n, s.k, up.w);
      std::vector<float> out(static_cast<size_t>(s.m * s.n));
      gemm.Run(SwiGluParams{gate.Input(dtype), s.k, s.m, gate_w.matrix(), up_w.matrix(),
                            gate.bias.data(), up.bias.data(), out.data(), DType::kF32, s.n});
      const auto g = reference::Linear(gate.x, gate.w, gate.bias, s.m, s.n, s.k);
      const auto u = reference::Linear(gate.x, up.w, up.bias, s.m, s.n, s.k);
      for (size_t i = 0; i < out.size(); ++i) {
        const double expected = reference::Silu(g[i]) * u[i];
        const double tolerance = (1 + std::fabs(g[i]) + std::fabs(u[i])) *
                                 (kSumTolerance * static_cast<double>(s.k) + 1e-6);
        ASSERT_NEAR(out[i], expected, tolerance);
      }
    }
  }
}

TEST(Gemm, Bf16OutputIsTheRoundedResult) {
  ThreadPool pool(2);
  Gemm gemm(pool);
  const Operands o(5, 70, 64, 3);
  for (DType dtype : Types()) {
    const Packed w(dtype, o.n, o.k, o.w);
    const std::vector<float> wide = RunGemm(gemm, o, w, GemmEpilogue::kStore, o.m);
    std::vector<uint16_t> narrow(static_cast<size_t>(o.m * o.n));
    gemm.Run(GemmParams{o.Input(dtype), o.k, o.m, w.matrix(), o.bias.data(), GemmEpilogue::kStore,
                        narrow.data(), DType::kBF16, o.n});
    for (size_t i = 0; i < wide.size(); ++i) ASSERT_EQ(narrow[i], RoundToBf16(wide[i])) << i;
  }
}

TEST(Gemm, ARowDoesNotDependOnTheNumberOfRows) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (GemmEngine engine : {GemmEngine::kAuto, GemmEngine::kPortable}) {
      Gemm gemm(pool, engine);
      for (const Shape& s : {Shape{300, 320, 256}, Shape{300, 84, 448}, Shape{300, 2112, 96},
                             Shape{300, 200, 2816}}) {
        const Operands o(s.m, s.n, s.k, 11);
        for (DType dtype : Types()) {
          if (engine == GemmEngine::kPortable && dtype != DType::kF32) continue;
          const Packed w(dtype, s.n, s.k, o.w);
          const std::vector<float> all = RunGemm(gemm, o, w, GemmEpilogue::kStore, s.m);
          for (int64_t m : {1, 2, 3, 5, 8, 17, 63, 100, 128, 129, 255}) {
            const std::vector<float> some = RunGemm(gemm, o, w, GemmEpilogue::kStore, m);
            ASSERT_EQ(std::memcmp(some.data(), all.data(), some.size() * sizeof(float)), 0)
                << m << " rows of " << s.n << " x " << s.k;
          }
        }
      }
    }
  }
}

TEST(Gemm, ReadsStridedRows) {
  ThreadPool pool(2);
  Gemm gemm(pool);
  const Operands o(6, 96, 64, 5);
  const Packed w(DType::kF32, o.n, 48, o.w);  // the first 48 inputs of each row of 64
  std::vector<float> compact;
  for (int64_t row = 0; row < o.m; ++row) {
    compact.insert(compact.end(), o.x.begin() + row * 64, o.x.begin() + row * 64 + 48);
  }
  std::vector<float> a(static_cast<size_t>(o.m * 100), -1), b(static_cast<size_t>(o.m * o.n));
  gemm.Run(GemmParams{o.x.data(), 64, o.m, w.matrix(), nullptr, GemmEpilogue::kStore, a.data(),
                      DType::kF32, 100});
  gemm.Run(GemmParams{compact.data(), 48, o.m, w.matrix(), nullptr, GemmEpilogue::kStore, b.data(),
                      DType::kF32, o.n});
  for (int64_t row = 0; row < o.m; ++row) {
    ASSERT_EQ(std::memcmp(&a[static_cast<size_t>(row * 100)], &b[static_cast<size_t>(row * o.n)],
                          static_cast<size_t>(o.n) * sizeof(float)),
              0);
    for (int64_t column = o.n; column < 100; ++column) {
      ASSERT_EQ(a[static_cast<size_t>(row * 100 + column)], -1);
    }
  }
}

TEST(PackedMatrix, ReturnsWhatWasPacked) {
  const Operands o(1, 131, 70, 9);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const Packed w(dtype, o.n, o.k, o.w);
    std::vector<float> row(static_cast<size_t>(o.k));
    for (int64_t r = 0; r < o.n; ++r) {
      UnpackRow(w.matrix(), r, row.data());
      ASSERT_EQ(
          std::memcmp(row.data(), &o.w[static_cast<size_t>(r * o.k)], row.size() * sizeof(float)),
          0);
    }
  }
}

}  // namespace
}  // namespace videonsa
