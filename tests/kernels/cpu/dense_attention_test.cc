#include "kernels/cpu/dense_attention.h"

#include <tuple>

#include "hwy/targets.h"
#include "kernels/cpu/attention_mass.h"
#include "kernels/reference/kv_read.h"
#include "tests/kernels/cpu/kv_fixture.h"

namespace videonsa {
namespace {

using reference::AttentionCase;

// Runs prefill in chunks that end at `borders` (the last one is the length).
std::vector<float> Prefill(const AttentionCase& c, DType dtype, MathType math,
                           const std::vector<int>& borders, int threads, std::mt19937& rng) {
  ThreadPool pool(threads);
  TestPages pages(dtype, c.num_kv_heads, c.head_dim, c.len, rng);
  const int64_t row = int64_t{c.num_q_heads} * c.head_dim;
  std::vector<float> out(c.len * row, std::numeric_limits<float>::quiet_NaN());
  GarbageScratch scratch(
      DensePrefillScratchBytes(threads, c.num_q_heads, c.num_kv_heads, c.head_dim));
  int begin = 0;
  for (int end : borders) {
    pages.Append(c, begin, end, pool);
    DensePrefillParams p;
    p.kv = pages.kv();
    p.q = {c.Q(begin, 0), row};
    p.out = {out.data() + begin * row, row};
    p.num_q_heads = c.num_q_heads;
    p.row_begin = begin;
    p.row_end = end;
    p.scale = static_cast<float>(c.Scale());
    p.math = math;
    DensePrefill(p, scratch.get(), pool);
    begin = end;
  }
  return out;
}

TEST(DensePrefill, EqualsOracleOnEveryTargetAndLayout) {
  std::mt19937 rng(1);
  for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    for (const auto& [len, heads, kv_heads, dim] : {std::tuple{1, 4, 2, 16},
                                                    {2, 1, 1, 32},
                                                    {63, 6, 2, 64},
                                                    {64, 4, 4, 48},
                                                    {65, 8, 2, 80},
                                                    {130, 28, 4, 16},
                                                    {257, 5, 1, 128}}) {
      const AttentionCase c = RandomCase(len, heads, kv_heads, dim, rng);
      const std::vector<double> want = reference::DenseAttention(c);
      for (DType dtype : {DType::kF32, DType::kBF16}) {
        EXPECT_TRUE(AllClose(Prefill(c, dtype, MathType::kF32, {len}, 2, rng).data(), want.data(),
                             want.size()))
            << "len " << len << " heads " << heads << "/" << kv_heads << " dim " << dim
            << " target " << hwy::TargetName(targets & -targets);
      }
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(DensePrefill, Bf16MathIsCloseAndChunksAreBitwiseEqual) {
  std::mt19937 rng(2);
  const AttentionCase c = RandomCase(300, 8, 2, 64, rng);
  const std::vector<double> want = reference::DenseAttention(c);
  for (MathType math : {MathType::kF32, MathType::kBF16}) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const std::vector<float> whole = Prefill(c, dtype, math, {300}, 1, rng);
      // bf16 has 8 bits: values are averages of numbers of size 1 with weights off by 2^-9.
      EXPECT_TRUE(AllClose(whole.data(), want.data(), want.size(),
                           math == MathType::kBF16 ? 2e-2 : kF32Tolerance));
      for (const std::vector<int>& borders :
           {std::vector{1, 2, 63, 64, 65, 128, 300}, {7, 191, 192, 193, 299, 300}}) {
        const std::vector<float> pieces = Prefill(c, dtype, math, borders, 2, rng);
        EXPECT_EQ(std::memcmp(pieces.data(), whole.data(), whole.size() * sizeof(float)), 0);
      }
    }
  }
}

TEST(DensePrefill, LargeLogitsAndSkippedRows) {
  std::mt19937 rng(3);
  const AttentionCase c = RandomCase(200, 4, 2, 64, rng, 8.0f);  // logits of size 500
  const std::vector<double> want = reference::DenseAttention(c);
  EXPECT_TRUE(AllClose(Prefill(c, DType::kF32, MathType::kF32, {200}, 2, rng).data(), want.data(),
                       want.size(), 1e-3));  // logits off by 500 * 2^-22
  ThreadPool pool(2);
  TestPages pages(DType::kF32, 2, 64, 200, rng);
  pages.Append(c, 0, 200, pool);
  GarbageScratch scratch(DensePrefillScratchBytes(2, 4, 2, 64));
  std::vector<uint8_t> skip(200);
  for (size_t i = 0; i < skip.size(); ++i) skip[i] = i % 3 != 0 || (i > 64 && i < 128);
  std::vector<float> out(200 * 256, -7.0f);
  DensePrefillParams p;
  p.kv = pages.kv();
  p.q = {c.q.data(), 256};
  p.out = {out.data(), 256};
  p.skip_rows = skip.data();
  p.num_q_heads = 4;
  p.row_end = 200;
  p.scale = static_cast<float>(c.Scale());
  DensePrefill(p, scratch.get(), pool);
  for (int row = 0; row < 200; ++row) {
    if (skip[row]) {
      for (int i = 0; i < 256; ++i) ASSERT_EQ(out[row * 256 + i], -7.0f);
    } else {
      ASSERT_TRUE(AllClose(&out[row * 256], &want[row * 256], 256, 1e-3)) << row;
    }
  }
}

TEST(DenseDecode, ManySequencesEqualTheOracleAndDoNotSeeEachOther) {
  std::mt19937 rng(4);
  ThreadPool pool(2);
  const int dim = 32, heads = 6, kv_heads = 2;
  const std::vector<int> lens = {1, 64, 65, 2047, 2048, 2049, 700, 0};
  // One set of page arrays for all; every sequence has its own page table into it.
  AttentionCase all = RandomCase(7000, heads, kv_heads, dim, rng);
  for (const auto& [dtype, math] : {std::pair{DType::kF32, MathType::kF32},
                                    {DType::kBF16, MathType::kF32},
                                    {DType::kBF16, MathType::kBF16}}) {
    TestPages pages(dtype, kv_heads, dim, 64 * 120, rng);
    std::vector<std::vector<double>> want;
    std::vector<const int32_t*> tables;
    std::vector<float> q;
    int page = 0, row = 0;
    for (int len : lens) {
      AttentionCase one = all;
      one.len = len;
      const auto cut = [&](const std::vector<float>& from, int width) {
        return std::vector<float>(from.begin() + int64_t{row} * width,
                                  from.begin() + (int64_t{row} + len) * width);
      };
      one.q = cut(all.q, heads * dim);
      one.k = cut(all.k, kv_heads * dim);
      one.v = cut(all.v, kv_heads * dim);
      row += len;
      tables.push_back(pages.kv().page_ids + page);
      KvAppendParams a;
      a.kv = pages.kv();
      a.kv.page_ids = tables.back();
      a.k = {one.k.data(), kv_heads * dim};
      a.v = {one.v.data(), kv_heads * dim};
      a.num_tokens = len;
      AppendKv(a, pool);
      page += (len + 63) / 64;
      std::vector<double> rows;
      for (int head = 0; head < heads; ++head) {
        const std::vector<double> r =
            len > 0 ? DenseRow(one, len - 1, head) : std::vector<double>(dim, 0.0);
        rows.insert(rows.end(), r.begin(), r.end());
      }
      want.push_back(rows);
      if (len > 0) {
        q.insert(q.end(), one.q.end() - heads * dim, one.q.end());
      } else {
        q.insert(q.end(), heads * dim, 1.0f);
      }
    }
    const auto run = [&](int first, int count) {
      GarbageScratch scratch(DenseDecodeScratchBytes(2, count, 2049, heads, kv_heads, dim));
      std::vector<float> out(count * heads * dim, std::numeric_limits<float>::quiet_NaN());
      DecodeParams p;
      p.kv = pages.kv();
      p.q = {q.data() + first * heads * dim, heads * dim};
      p.out = {out.data(), heads * dim};
      p.page_tables = tables.data() + first;
      p.kv_lens = lens.data() + first;
      p.num_seqs = count;
      p.num_q_heads = heads;
      p.scale = static_cast<float>(all.Scale());
      p.math = math;
      DenseDecode(p, scratch.get(), pool);
      return out;
    };
    const std::vector<float> together = run(0, static_cast<int>(lens.size()));
    for (size_t seq = 0; seq < lens.size(); ++seq) {
      EXPECT_TRUE(AllClose(&together[seq * heads * dim], want[seq].data(), heads * dim,
                           math == MathType::kBF16 ? 2e-2 : kF32Tolerance))
          << "kv_len " << lens[seq];
      const std::vector<float> alone = run(static_cast<int>(seq), 1);
      EXPECT_EQ(std::memcmp(alone.data(), &together[seq * heads * dim], alone.size() * 4), 0);
    }
  }
}

TEST(AppendKv, StoresEveryValueAndPoolsFullPagesOnly) {
  std::mt19937 rng(5);
  ThreadPool pool(2);
  const AttentionCase c = RandomCase(200, 2, 2, 32, rng);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    TestPages pages(dtype, 2, 32, 256, rng);
    int begin = 0;
    for (int end : {1, 63, 64, 70, 192, 200}) {
      pages.Append(c, begin, end, pool);
      begin = end;
    }
    for (int kv_head = 0; kv_head < 2; ++kv_head) {
      for (int dim = 0; dim < 32; ++dim) {
        for (int block = 0; block < 4; ++block) {
          double k = 0, v = 0;
          for (int t = block * 64; t < std::min(200, block * 64 + 64); ++t) {
            ASSERT_EQ(ReadK(pages.kv(), t, kv_head, dim), c.K(t, kv_head)[dim]);
            ASSERT_EQ(ReadV(pages.kv(), t, kv_head, dim), c.V(t, kv_head)[dim]);
            k += c.K(t, kv_head)[dim] / 64.0;
            v += c.V(t, kv_head)[dim] / 64.0;
          }
          const int64_t at = (int64_t{pages.kv().page_ids[block]} * 2 + kv_head) * 32 + dim;
          if (block < 3) {
            EXPECT_NEAR(pages.kv().k_pooled[at], k, 1e-6);
            EXPECT_NEAR(pages.kv().v_pooled[at], v, 1e-6);
          } else {
            EXPECT_TRUE(std::isnan(pages.kv().k_pooled[at]));
          }
        }
      }
    }
  }
}

TEST(AttentionMass, SharesOutOnePerRowAndHead) {
  std::mt19937 rng(6);
  ThreadPool pool(2);
  const AttentionCase c = RandomCase(260, 6, 2, 32, rng);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    TestPages pages(dtype, 2, 32, 260, rng);
    pages.Append(c, 0, 260, pool);
    GarbageScratch scratch(AttentionMassScratchBytes(2, 6, 2, 260));
    std::vector<double> mass(5, 0.0), want(5, 0.0);
    std::vector<uint8_t> skip(40, 0);
    skip[3] = skip[39] = 1;
    AttentionMassParams p;
    p.kv = pages.kv();
    p.q = {c.Q(220, 0), 6 * 32};
    p.skip_rows = skip.data();
    p.num_q_heads = 6;
    p.row_begin = 220;
    p.row_end = 260;
    p.scale = static_cast<float>(c.Scale());
    p.mass = mass.data();
    AddAttentionMass(p, scratch.get(), pool);
    for (int row = 220; row < 260; ++row) {
      for (int head = 0; head < 6 && !skip[row - 220]; ++head) {
        std::vector<double> logits;
        for (int j = 0; j <= row; ++j) {
          double dot = 0;
          for (int d = 0; d < 32; ++d) {
            dot += static_cast<double>(c.Q(row, head)[d]) * c.K(j, head / 3)[d];
          }
          logits.push_back(dot * c.Scale());
        }
        const double lse =
            reference::SoftmaxOver(logits, std::vector<std::vector<double>>(logits.size()), 0).lse;
        for (int j = 0; j <= row; ++j) want[j / 64] += std::exp(logits[j] - lse);
      }
    }
    double sum = 0;
    for (int b = 0; b < 5; ++b) {
      EXPECT_NEAR(mass[b], want[b], 1e-4 * want[b]);
      sum += mass[b];
    }
    EXPECT_NEAR(sum, 38 * 6, 1e-4);
  }
}

}  // namespace
}  // namespace videonsa
