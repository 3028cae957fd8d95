#include "kernels/cpu/sparse_prefill.h"

#include "kernels/reference/sparse_patterns.h"
#include "tests/kernels/cpu/kv_fixture.h"

namespace videonsa {
namespace {

using reference::AttentionCase;

struct SparseRun {
  DType dtype = DType::kF32;
  MathType math = MathType::kF32;
  int threads = 2;
};

std::vector<float> RunPattern(const AttentionCase& c, SparsePattern pattern,
                              const SparseSettings& settings, const SparseRun& run, int64_t* pairs,
                              std::mt19937& rng) {
  ThreadPool pool(run.threads);
  TestPages pages(run.dtype, c.num_kv_heads, c.head_dim, c.len, rng);
  pages.Append(c, 0, c.len, pool);
  const int64_t width = int64_t{c.num_q_heads} * c.head_dim;
  std::vector<float> out(c.len * width, std::numeric_limits<float>::quiet_NaN());
  SparsePrefillParams p;
  p.kv = pages.kv();
  p.q = {c.q.data(), width};
  p.out = {out.data(), width};
  p.pattern = pattern;
  p.settings = settings;
  p.num_q_heads = c.num_q_heads;
  p.num_rows = c.len;
  p.scale = static_cast<float>(c.Scale());
  p.math = run.math;
  p.pairs_all_heads = pairs;
  GarbageScratch scratch(SparsePrefillScratchBytes(p, run.threads, c.len));
  SparsePrefill(p, scratch.get(), pool);
  return out;
}

// The kernel against attention over the oracle's visible keys; returns the share of keys seen.
double ExpectEqualsOracle(const AttentionCase& c, SparsePattern pattern,
                          const SparseSettings& settings, DType dtype, std::mt19937& rng) {
  int64_t pairs = 0, want_pairs = 0;
  const std::vector<float> out = RunPattern(c, pattern, settings, {.dtype = dtype}, &pairs, rng);
  const int64_t width = int64_t{c.num_q_heads} * c.head_dim;
  for (int head = 0; head < c.num_q_heads; ++head) {
    const auto visible = VisibleKeys(c, pattern, settings, head);
    for (int row = 0; row < c.len; ++row) {
      std::vector<int> keys;
      for (int j = 0; j <= row; ++j) {
        if (visible[row][j]) keys.push_back(j);
      }
      want_pairs += static_cast<int64_t>(keys.size());
      EXPECT_TRUE(AllClose(&out[row * width + head * c.head_dim],
                           RowOverKeys(c, row, head, keys).data(), c.head_dim))
          << "head " << head << " row " << row;
      if (testing::Test::HasFailure()) return 0;
    }
  }
  EXPECT_EQ(pairs, want_pairs);
  return want_pairs / (0.5 * c.len * (c.len + 1) * c.num_q_heads);
}

// Settings small enough to leave something out of short prompts.
SparseSettings Small(std::mt19937& rng) {
  SparseSettings s;
  s.tri_init = 64 * static_cast<int>(rng() % 3);
  s.tri_local = 1 + static_cast<int>(rng() % 200);
  s.tri_last = static_cast<int>(rng() % 90);
  s.vertical = 30 + static_cast<int>(rng() % 60);
  s.slash = 100 + static_cast<int>(rng() % 20);
  s.flex_gamma = 0.05 + 0.1 * static_cast<double>(rng() % 8);
  s.flex_tau = rng() % 2 ? 0.1 : 10.0;  // 10: every head is query-aware
  s.x_threshold = 0.1 + 0.1 * static_cast<double>(rng() % 8);
  return s;
}

class SparsePatterns : public testing::TestWithParam<SparsePattern> {};

TEST_P(SparsePatterns, EqualOracle) {
  std::mt19937 rng(static_cast<unsigned>(GetParam()) + 1);
  double least = 1;
  for (int len : {1, 15, 63, 64, 65, 128, 200, 256, 257, 300, 517, 700}) {
    for (const auto& [heads, kv_heads, dim] : {std::tuple{4, 2, 32}, {3, 3, 16}}) {
      const AttentionCase c = RandomCase(len, heads, kv_heads, dim, rng, 1.5f);
      for (DType dtype : {DType::kF32, DType::kBF16}) {
        SCOPED_TRACE(testing::Message() << "len " << len);
        least = std::min(least, ExpectEqualsOracle(c, GetParam(), Small(rng), dtype, rng));
      }
    }
  }
  EXPECT_LT(least, 0.75);  // the patterns left something out
}

TEST_P(SparsePatterns, PublishedSettingsAreDenseOnShortPrompts) {
  std::mt19937 rng(9);
  const AttentionCase c = RandomCase(200, 4, 2, 64, rng);
  const std::vector<double> dense = reference::DenseAttention(c);
  SparseSettings settings;
  settings.x_threshold = 1.01;  // the only pattern whose settings cut short prompts
  int64_t pairs = 0;
  const std::vector<float> out = RunPattern(c, GetParam(), settings, {}, &pairs, rng);
  EXPECT_TRUE(AllClose(out.data(), dense.data(), dense.size()));
  EXPECT_EQ(pairs, 4 * 200 * 201 / 2);
}

TEST_P(SparsePatterns, ThreadsDoNotMatterAndBf16IsClose) {
  std::mt19937 rng(10);
  const AttentionCase c = RandomCase(600, 4, 2, 64, rng);
  const SparseSettings settings = Small(rng);
  int64_t pairs = 0, pairs_bf16 = 0;
  const std::vector<float> one = RunPattern(c, GetParam(), settings, {.threads = 1}, &pairs, rng);
  const std::vector<float> three =
      RunPattern(c, GetParam(), settings, {.threads = 3}, nullptr, rng);
  EXPECT_EQ(std::memcmp(one.data(), three.data(), one.size() * sizeof(float)), 0);
  const std::vector<float> bf16 =
      RunPattern(c, GetParam(), settings, {DType::kBF16, MathType::kBF16, 2}, &pairs_bf16, rng);
  EXPECT_EQ(pairs, pairs_bf16);  // patterns are found in fp32 whatever the products are
  const std::vector<double> want(one.begin(), one.end());
  EXPECT_TRUE(AllClose(bf16.data(), want.data(), want.size(), 2e-2));
}

INSTANTIATE_TEST_SUITE_P(All, SparsePatterns,
                         testing::Values(SparsePattern::kTriShape, SparsePattern::kMInference,
                                         SparsePattern::kFlexPrefill, SparsePattern::kXAttention));

}  // namespace
}  // namespace videonsa
