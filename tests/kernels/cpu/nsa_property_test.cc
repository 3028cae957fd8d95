// 2,000 random cases against the oracles: lengths 1 to 5,000 (most of them short, so that the whole
// takes about a minute on two cores), heads, block counts, windows, layouts, chunk borders, page
// types. Pages are scattered and every unused byte is NaN.
#include "kernels/cpu/dense_attention.h"
#include "tests/kernels/cpu/oracle_checks.h"

namespace videonsa {
namespace {

using reference::AttentionCase;

int Between(int low, int high, std::mt19937& rng) {
  return low + static_cast<int>(rng() % static_cast<unsigned>(high - low + 1));
}

template <typename T>
T OneOf(std::initializer_list<T> values, std::mt19937& rng) {
  return *(values.begin() + rng() % values.size());
}

// Mostly short; page borders +-1 more often than chance.
int RandomLength(std::mt19937& rng) {
  const int kind = Between(0, 99, rng);
  if (kind < 30) return std::max(1, 64 * Between(0, 5, rng) + Between(-1, 1, rng));
  if (kind < 80) return Between(1, 200, rng);
  if (kind < 97) return Between(200, 900, rng);
  return Between(900, 5000, rng);
}

std::vector<uint8_t> RandomLayout(int len, std::mt19937& rng) {
  std::vector<uint8_t> layout(len, static_cast<uint8_t>(Between(0, 1, rng)));
  const int kind = Between(0, 5, rng);
  if (kind == 0) return layout;  // only text or only vision rows
  if (kind == 1) {
    for (uint8_t& x : layout) x = static_cast<uint8_t>(Between(0, 1, rng));
    return layout;
  }
  for (int at = 0; at < len;) {
    const int run = Between(1, kind == 2 ? 20 : 300, rng);
    const uint8_t vision = static_cast<uint8_t>(Between(0, 1, rng));
    for (int i = 0; i < run && at < len; ++i, ++at) layout[at] = vision;
  }
  return layout;
}

AttentionCase RandomNsaCase(int heads, int kv_heads, int dim, std::mt19937& rng) {
  AttentionCase c =
      RandomCase(RandomLength(rng), heads, kv_heads, dim, rng, OneOf({0.3f, 1.0f, 2.0f}, rng));
  FillNormal(c.g, static_cast<size_t>(c.len) * heads * 3, rng);
  c.is_vision = RandomLayout(c.len, rng);
  c.window = OneOf({1, 2, 63, 64, 65, 256, c.len, c.len + 7, Between(1, 400, rng)}, rng);
  return c;
}

// A few rows: the first, the last, page borders, and random ones.
std::vector<int> SomeRows(int len, int count, std::mt19937& rng) {
  std::vector<int> rows{0, len - 1, std::min(63, len - 1), std::min(64, len - 1)};
  while (static_cast<int>(rows.size()) < std::min(count, len))
    rows.push_back(Between(0, len - 1, rng));
  return rows;
}

std::vector<int> RandomBorders(int len, std::mt19937& rng) {
  std::vector<int> borders{len};
  for (int i = Between(0, 3, rng); i > 0; --i) borders.push_back(Between(1, len, rng));
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
  return borders;
}

void RunCausalCases(unsigned seed, int count) {
  std::mt19937 rng(seed);
  for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
    const auto [heads, kv_heads] =
        OneOf<std::pair<int, int>>({{1, 1}, {4, 2}, {6, 2}, {8, 1}, {3, 3}, {16, 4}, {28, 4}}, rng);
    AttentionCase c = RandomNsaCase(heads, kv_heads, OneOf({16, 32, 48, 64}, rng), rng);
    c.block_count = OneOf({1, 2, 3, 4, 8, 16, 32, Between(1, 40, rng)}, rng);
    CausalRun run{OneOf({DType::kF32, DType::kBF16}, rng), MathType::kF32, Between(1, 2, rng),
                  RandomBorders(c.len, rng)};
    SCOPED_TRACE(testing::Message() << "seed " << seed << " case " << i << " len " << c.len);
    const CausalOutput out = RunCausal(c, run, rng);
    const std::vector<int> rows = SomeRows(c.len, 12, rng);
    ExpectCausalRows(c, out, rows);
    ExpectCausalAccount(c, out);
    const size_t width = static_cast<size_t>(heads) * c.head_dim;
    for (int row : rows) {
      for (int head = 0; head < heads && c.is_vision[row]; ++head) {
        const size_t at = row * width + static_cast<size_t>(head) * c.head_dim;
        if (c.window > row || c.block_count > row / 64) {
          const std::vector<double> dense = DenseRow(c, row, head);
          if (c.window > row) {
            ASSERT_TRUE(AllClose(&out.o_win[at], dense.data(), c.head_dim));
          }
          if (c.block_count > row / 64) {
            ASSERT_TRUE(AllClose(&out.o_slc[at], dense.data(), c.head_dim));
          }
        }
      }
    }
  }
}

void RunReleasedCases(unsigned seed, int count) {
  std::mt19937 rng(seed);
  for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
    AttentionCase c = RandomNsaCase(kReleasedHeads, kReleasedKvHeads, OneOf({16, 32}, rng), rng);
    c.block_count = OneOf({1, 2, 3, 4, 5, 8, 16, 32, Between(1, 32, rng)}, rng);
    SCOPED_TRACE(testing::Message() << "seed " << seed << " case " << i << " len " << c.len);
    const ReleasedOutput out =
        RunReleased(c, OneOf({DType::kF32, DType::kBF16}, rng), MathType::kF32, 2, rng);
    const bool any = std::count(c.is_vision.begin(), c.is_vision.end(), 1) > 0;
    const std::vector<int> rows = SomeRows(c.len, 5, rng);
    if (any) ExpectReleasedRows(c, out, rows);
    ExpectReleasedAccount(c, out);
    for (int row : rows) {
      if (any) break;
      for (int head = 0; head < kReleasedHeads; ++head) {
        const size_t at = (size_t{kReleasedHeads} * row + head) * c.head_dim;
        ASSERT_TRUE(AllClose(&out.o[at], DenseRow(c, row, head).data(), c.head_dim));
      }
    }
  }
}

void RunDenseCases(unsigned seed, int count) {
  std::mt19937 rng(seed);
  ThreadPool pool(2);
  for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
    const auto [heads, kv_heads] =
        OneOf<std::pair<int, int>>({{1, 1}, {4, 2}, {7, 1}, {28, 4}, {5, 5}}, rng);
    const int dim = OneOf({16, 32, 64, 80, 128}, rng);
    const AttentionCase c = RandomCase(RandomLength(rng), heads, kv_heads, dim, rng);
    SCOPED_TRACE(testing::Message() << "seed " << seed << " case " << i << " len " << c.len);
    TestPages pages(OneOf({DType::kF32, DType::kBF16}, rng), kv_heads, dim, c.len, rng);
    const int64_t width = int64_t{heads} * dim;
    std::vector<float> out(c.len * width, std::numeric_limits<float>::quiet_NaN());
    GarbageScratch scratch(DensePrefillScratchBytes(2, heads, kv_heads, dim));
    int begin = 0;
    for (int end : RandomBorders(c.len, rng)) {
      pages.Append(c, begin, end, pool);
      const float scale = static_cast<float>(c.Scale());
      DensePrefill({pages.kv(),
                    {c.Q(begin, 0), width},
                    {out.data() + begin * width, width},
                    nullptr,
                    heads,
                    begin,
                    end,
                    scale},
                   scratch.get(), pool);
      begin = end;
    }
    for (int row : SomeRows(c.len, 8, rng)) {
      for (int head = 0; head < heads; ++head) {
        ASSERT_TRUE(AllClose(&out[row * width + head * dim], DenseRow(c, row, head).data(), dim));
      }
    }
    GarbageScratch decode_scratch(DenseDecodeScratchBytes(2, 1, c.len, heads, kv_heads, dim));
    std::vector<float> last(width, std::numeric_limits<float>::quiet_NaN());
    const int32_t* table = pages.kv().page_ids;
    const int32_t kv_len = c.len;
    DenseDecode({pages.kv(),
                 {c.Q(c.len - 1, 0), width},
                 {last.data(), width},
                 &table,
                 &kv_len,
                 1,
                 heads,
                 static_cast<float>(c.Scale())},
                decode_scratch.get(), pool);
    for (int head = 0; head < heads; ++head) {
      ASSERT_TRUE(AllClose(&last[head * dim], DenseRow(c, c.len - 1, head).data(), dim));
    }
  }
}

TEST(NsaProperty, CausalEqualsOracle1) { RunCausalCases(101, 300); }
TEST(NsaProperty, CausalEqualsOracle2) { RunCausalCases(102, 300); }
TEST(NsaProperty, CausalEqualsOracle3) { RunCausalCases(103, 300); }
TEST(NsaProperty, CausalEqualsOracle4) { RunCausalCases(104, 300); }
TEST(NsaProperty, ReleasedEqualsOracle1) { RunReleasedCases(201, 200); }
TEST(NsaProperty, ReleasedEqualsOracle2) { RunReleasedCases(202, 200); }
TEST(NsaProperty, DenseEqualsOracle) { RunDenseCases(301, 400); }

TEST(NsaProperty, RightGatesAndAllBlocksEqualDense) {
  std::mt19937 rng(401);
  AttentionCase c = RandomCase(700, 8, 2, 32, rng);
  c.is_vision.assign(c.len, 1);
  c.block_count = 11;
  c.window = 1;
  for (int branch : {1, 2}) {
    if (branch == 2) c.window = 700, c.block_count = 1;
    c.g.assign(static_cast<size_t>(c.len) * 8 * 3, -100.0f);
    for (size_t i = branch; i < c.g.size(); i += 3) c.g[i] = 100.0f;
    const CausalOutput out = RunCausal(c, {.borders = {333, 700}}, rng);
    const std::vector<double> dense = reference::DenseAttention(c);
    EXPECT_TRUE(AllClose(out.o.data(), dense.data(), dense.size())) << "branch " << branch;
  }
}

}  // namespace
}  // namespace videonsa
