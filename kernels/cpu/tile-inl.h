// Attention over one tile of 64 keys, for a group of rows at a time: the inner loop that dense,
// selected and windowed attention share. Included once per target.

#if defined(VIDEONSA_KERNELS_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VIDEONSA_KERNELS_CPU_TILE_INL_H_
#undef VIDEONSA_KERNELS_CPU_TILE_INL_H_
#else
#define VIDEONSA_KERNELS_CPU_TILE_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/cpu/tile_rows.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using BitsTag = hn::RebindToUnsigned<FloatTag>;
using FloatVec = hn::Vec<FloatTag>;
using BitsVec = hn::Vec<BitsTag>;
inline constexpr size_t kLanes = HWY_MIN(16, HWY_LANES(float));
// Vectors of keys (or of coordinates) held beside up to kMaxGroup rows: 6 x 4 accumulators fill 32
// registers, 6 x 2 fill 16.
inline constexpr size_t kWide = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
inline constexpr int kMaxGroup = 6;

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
inline constexpr bool kTargetHasPairDot = true;
// acc + a0 b0 + a1 b1 for the bf16 pairs in each 32-bit lane. Highway 1.0.3 does not know the
// instruction; callers check MachineMultipliesBf16Pairs() first.
HWY_INLINE FloatVec PairDot(FloatVec acc, BitsVec a, BitsVec b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(acc.raw) : "v"(a.raw), "v"(b.raw));
  return acc;
}
#else
inline constexpr bool kTargetHasPairDot = false;
HWY_INLINE FloatVec PairDot(FloatVec acc, BitsVec, BitsVec) { return acc; }  // never reached
#endif

// The even (low half) and odd bf16 of every pair, as floats.
HWY_INLINE FloatVec EvenOfPair(BitsVec pairs) {
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(pairs));
}
HWY_INLINE FloatVec OddOfPair(BitsVec pairs) {
  return hn::BitCast(FloatTag(), hn::And(pairs, hn::Set(BitsTag(), 0xFFFF0000u)));
}

// Rounds to bf16, nearest even, into the low half of each lane (finite input).
HWY_INLINE BitsVec ToBf16Bits(FloatVec x) {
  const BitsTag du;
  const BitsVec bits = hn::BitCast(du, x);
  const BitsVec odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  return hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd));
}

// Stores kLanes floats as bf16.
HWY_INLINE void StoreBf16(FloatVec x, uint16_t* HWY_RESTRICT to) {
  const hn::Rebind<uint16_t, FloatTag> d16;
  hn::StoreU(hn::TruncateTo(d16, ToBf16Bits(x)), d16, to);
}

// 2^x. Relative error below 3e-7 for x in [-126, 127]; smaller x (and NaN: see below) act as -126.
// Max(x, low) returns low for NaN on x86; a NaN logit therefore weighs nothing instead of trapping.
HWY_INLINE FloatVec Exp2(FloatVec x) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  x = hn::Max(x, hn::Set(d, -126.0f));
  const FloatVec magic = hn::Set(d, 12582912.0f);  // 1.5 * 2^23: rounds to integer in the low bits
  const FloatVec shifted = hn::Add(x, magic);
  const FloatVec f = hn::Sub(x, hn::Sub(shifted, magic));
  FloatVec p = hn::Set(d, 1.327647215e-3f);
  p = hn::MulAdd(p, f, hn::Set(d, 9.675541662e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550713276e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402211972e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931469671e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
}

// --- scores: s[m][0..63] = q_m . k_j

template <TileKind kKind, int kRows, size_t kVecs>
HWY_INLINE void ScoreColumns(const TileRow* HWY_RESTRICT rows, const void* HWY_RESTRICT k_tile,
                             size_t head_dim, size_t column, float* HWY_RESTRICT s,
                             size_t s_stride) {
  const FloatTag d;
  const BitsTag du;
  FloatVec acc[kRows][kVecs];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVecs; ++v) acc[m][v] = hn::Zero(d);
  }
  if constexpr (kKind == TileKind::kF32) {
    const float* HWY_RESTRICT k = static_cast<const float*>(k_tile) + column;
    for (size_t i = 0; i < head_dim; ++i, k += kKvPageTokens) {
      FloatVec b[kVecs];
#pragma GCC unroll 8
      for (size_t v = 0; v < kVecs; ++v) b[v] = hn::LoadU(d, k + v * kLanes);
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) {
        const FloatVec a = hn::Set(d, rows[m].q[i]);
#pragma GCC unroll 8
        for (size_t v = 0; v < kVecs; ++v) acc[m][v] = hn::MulAdd(a, b[v], acc[m][v]);
      }
    }
  } else {
    const uint32_t* HWY_RESTRICT k = static_cast<const uint32_t*>(k_tile) + column;
    for (size_t i = 0; i < head_dim / 2; ++i, k += kKvPageTokens) {
      BitsVec b[kVecs];
#pragma GCC unroll 8
      for (size_t v = 0; v < kVecs; ++v) b[v] = hn::LoadU(du, k + v * kLanes);
      if constexpr (kKind == TileKind::kBf16Dot) {
#pragma GCC unroll 8
        for (int m = 0; m < kRows; ++m) {
          const BitsVec a = hn::Set(du, rows[m].q_pairs[i]);
#pragma GCC unroll 8
          for (size_t v = 0; v < kVecs; ++v) acc[m][v] = PairDot(acc[m][v], a, b[v]);
        }
      } else {
#pragma GCC unroll 8
        for (int odd = 0; odd < 2; ++odd) {
          FloatVec wide[kVecs];
#pragma GCC unroll 8
          for (size_t v = 0; v < kVecs; ++v) wide[v] = odd ? OddOfPair(b[v]) : EvenOfPair(b[v]);
#pragma GCC unroll 8
          for (int m = 0; m < kRows; ++m) {
            const FloatVec a = hn::Set(d, rows[m].q[2 * i + odd]);
#pragma GCC unroll 8
            for (size_t v = 0; v < kVecs; ++v) acc[m][v] = hn::MulAdd(a, wide[v], acc[m][v]);
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVecs; ++v) {
      hn::StoreU(acc[m][v], d, s + m * s_stride + column + v * kLanes);
    }
  }
}

template <TileKind kKind, int kRows>
HWY_INLINE void Scores(const TileRow* HWY_RESTRICT rows, const void* HWY_RESTRICT k_tile,
                       size_t head_dim, float* HWY_RESTRICT s, size_t s_stride = kKvPageTokens) {
  constexpr size_t kVecs = HWY_MIN(kWide, kKvPageTokens / kLanes);
  for (size_t column = 0; column < kKvPageTokens; column += kVecs * kLanes) {
    ScoreColumns<kKind, kRows, kVecs>(rows, k_tile, head_dim, column, s, s_stride);
  }
}

// --- softmax: s becomes weights relative to the row's reference; the row's sums follow

// Raises the row's reference (log2 units) to `reference` and rescales what was summed before.
HWY_INLINE void RaiseReference(float* HWY_RESTRICT state, size_t head_dim, float reference) {
  const FloatTag d;
  float& old = state[StateReference(head_dim)];
  const float factor = std::exp2(old - reference);  // 0 the first time: old is -inf
  const FloatVec f = hn::Set(d, factor);
  for (size_t i = 0; i < head_dim + kLanes; i += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, state + i), f), d, state + i);
  }
  old = reference;
}

// Reference is raised only past this excess: weights stay below 2^8, far from overflow.
inline constexpr float kReferenceSlack = 8.0f;

// Which keys of vector `v` of the tile the row sees.
HWY_INLINE hn::Mask<FloatTag> SeenKeys(size_t v, const TileRow& row, const KvTile& tile) {
  const FloatTag d;
  const FloatVec j = hn::Iota(d, static_cast<float>(v * kLanes));
  const auto seen = hn::And(hn::Ge(j, hn::Set(d, static_cast<float>(row.lo))),
                            hn::Lt(j, hn::Set(d, static_cast<float>(row.hi))));
  if (tile.visible == nullptr) return seen;
  return hn::And(seen, hn::Gt(hn::LoadU(d, tile.visible + v * kLanes), hn::Zero(d)));
}

template <bool kMasked>
HWY_INLINE void SoftmaxRow(const TileRow& row, const KvTile& tile, size_t head_dim,
                           float log2_scale, float* HWY_RESTRICT s) {
  const FloatTag d;
  constexpr size_t kVecs = kKvPageTokens / kLanes;
  const FloatVec c = hn::Set(d, log2_scale);
  const FloatVec minus_inf = hn::Set(d, -std::numeric_limits<float>::infinity());
  FloatVec x[kVecs];
  hn::Mask<FloatTag> seen[kVecs];
  FloatVec top = minus_inf;
#pragma GCC unroll 16
  for (size_t v = 0; v < kVecs; ++v) {
    x[v] = hn::Mul(hn::LoadU(d, s + v * kLanes), c);
    if constexpr (kMasked) {
      if (tile.keep) x[v] = hn::Mul(x[v], hn::LoadU(d, tile.keep + v * kLanes));
      seen[v] = SeenKeys(v, row, tile);
      x[v] = hn::IfThenElse(seen[v], x[v], minus_inf);
    }
    top = hn::Max(top, x[v]);
  }
  float reference = row.state[StateReference(head_dim)];
  if (!hn::AllFalse(d, hn::Gt(top, hn::Set(d, reference + kReferenceSlack)))) {
    reference = hn::GetLane(hn::MaxOfLanes(d, top));
    RaiseReference(row.state, head_dim, reference);
  }
  const FloatVec r = hn::Set(d, reference);
  FloatVec sum = hn::LoadU(d, row.state + head_dim);
#pragma GCC unroll 16
  for (size_t v = 0; v < kVecs; ++v) {
    FloatVec p = Exp2(hn::Sub(x[v], r));
    if constexpr (kMasked) p = hn::IfThenElseZero(seen[v], p);
    sum = hn::Add(sum, p);
    if constexpr (kMasked) {
      if (tile.keep) p = hn::Mul(p, hn::LoadU(d, tile.keep + v * kLanes));
    }
    hn::StoreU(p, d, s + v * kLanes);
  }
  hn::StoreU(sum, d, row.state + head_dim);
}

// --- accumulation: state_m[0..head_dim) += sum_j p[m][j] v_j for j in [first, last)

template <TileKind kKind, int kRows, size_t kVecs>
HWY_INLINE void AccumulateColumns(const TileRow* HWY_RESTRICT rows, const void* HWY_RESTRICT v_tile,
                                  size_t head_dim, size_t column, KeyRange keys,
                                  const float* HWY_RESTRICT p, const uint32_t* HWY_RESTRICT pairs,
                                  size_t p_stride) {
  const FloatTag d;
  const BitsTag du;
  FloatVec acc[kRows][kVecs];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVecs; ++v)
      acc[m][v] = hn::LoadU(d, rows[m].state + column + v * kLanes);
  }
  if constexpr (kKind == TileKind::kF32) {
    const float* HWY_RESTRICT values = static_cast<const float*>(v_tile) + column;
    for (size_t j = keys.first; j < keys.last; ++j) {
      FloatVec b[kVecs];
#pragma GCC unroll 8
      for (size_t v = 0; v < kVecs; ++v) b[v] = hn::LoadU(d, values + j * head_dim + v * kLanes);
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) {
        const FloatVec a = hn::Set(d, p[m * p_stride + j]);
#pragma GCC unroll 8
        for (size_t v = 0; v < kVecs; ++v) acc[m][v] = hn::MulAdd(a, b[v], acc[m][v]);
      }
    }
  } else {
    const uint32_t* HWY_RESTRICT values = static_cast<const uint32_t*>(v_tile) + column;
    for (size_t j = keys.first / 2; j < (keys.last + 1) / 2; ++j) {
      // The second token of the last pair may be garbage: its bits are cleared.
      const BitsVec valid = hn::Set(du, 2 * j + 1 < keys.last ? 0xFFFFFFFFu : 0x0000FFFFu);
      BitsVec b[kVecs];
#pragma GCC unroll 8
      for (size_t v = 0; v < kVecs; ++v) {
        b[v] = hn::And(valid, hn::LoadU(du, values + j * head_dim + v * kLanes));
      }
      if constexpr (kKind == TileKind::kBf16Dot) {
#pragma GCC unroll 8
        for (int m = 0; m < kRows; ++m) {
          const BitsVec a = hn::Set(du, pairs[m * (kKvPageTokens / 2) + j]);
#pragma GCC unroll 8
          for (size_t v = 0; v < kVecs; ++v) acc[m][v] = PairDot(acc[m][v], a, b[v]);
        }
      } else {
#pragma GCC unroll 8
        for (int odd = 0; odd < 2; ++odd) {
          FloatVec wide[kVecs];
#pragma GCC unroll 8
          for (size_t v = 0; v < kVecs; ++v) wide[v] = odd ? OddOfPair(b[v]) : EvenOfPair(b[v]);
#pragma GCC unroll 8
          for (int m = 0; m < kRows; ++m) {
            const FloatVec a = hn::Set(d, p[m * p_stride + 2 * j + odd]);
#pragma GCC unroll 8
            for (size_t v = 0; v < kVecs; ++v) acc[m][v] = hn::MulAdd(a, wide[v], acc[m][v]);
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVecs; ++v)
      hn::StoreU(acc[m][v], d, rows[m].state + column + v * kLanes);
  }
}

template <TileKind kKind, int kRows>
HWY_INLINE void Accumulate(const TileRow* HWY_RESTRICT rows, const void* HWY_RESTRICT v_tile,
                           size_t head_dim, KeyRange keys, const float* HWY_RESTRICT p,
                           const uint32_t* HWY_RESTRICT pairs, size_t p_stride = kKvPageTokens) {
  size_t column = 0;
  for (; column + kWide * kLanes <= head_dim; column += kWide * kLanes) {
    AccumulateColumns<kKind, kRows, kWide>(rows, v_tile, head_dim, column, keys, p, pairs,
                                           p_stride);
  }
  for (; column + 2 * kLanes <= head_dim; column += 2 * kLanes) {
    AccumulateColumns<kKind, kRows, 2>(rows, v_tile, head_dim, column, keys, p, pairs, p_stride);
  }
  for (; column < head_dim; column += kLanes) {
    AccumulateColumns<kKind, kRows, 1>(rows, v_tile, head_dim, column, keys, p, pairs, p_stride);
  }
}

// --- one group of rows against one tile

template <TileKind kKind, int kRows, bool kMasked>
HWY_NOINLINE void AttendGroup(const TileRow* HWY_RESTRICT rows, const KvTile& tile, size_t head_dim,
                              float log2_scale) {
  alignas(64) float s[kRows * kKvPageTokens];
  alignas(64) uint32_t pairs[kKind == TileKind::kBf16Dot ? kRows * kKvPageTokens / 2 : 1];
  Scores<kKind, kRows>(rows, tile.k, head_dim, s);
  KeyRange keys{kMasked ? size_t{kKvPageTokens} : 0, kMasked ? 0 : size_t{kKvPageTokens}};
#pragma GCC unroll 1
  for (int m = 0; m < kRows; ++m) {
    SoftmaxRow<kMasked>(rows[m], tile, head_dim, log2_scale, s + m * kKvPageTokens);
    if constexpr (kMasked) {
      keys.first = HWY_MIN(keys.first, static_cast<size_t>(rows[m].lo) & ~size_t{1});
      keys.last = HWY_MAX(keys.last, static_cast<size_t>(rows[m].hi));
    }
  }
  if constexpr (kKind == TileKind::kBf16Dot) {
    const FloatTag d;
    uint16_t* p16 = reinterpret_cast<uint16_t*>(pairs);
    for (size_t i = 0; i < kRows * kKvPageTokens; i += kLanes)
      StoreBf16(hn::LoadU(d, s + i), p16 + i);
  }
  Accumulate<kKind, kRows>(rows, tile.v, head_dim, keys, s, pairs);
}

// Calls body(std::integral_constant<int, n>, first row) for groups of at most kMaxGroup rows.
template <class Body>
HWY_INLINE void ForGroups(int num_rows, const Body& body) {
  int row = 0;
  for (; row + kMaxGroup <= num_rows; row += kMaxGroup) {
    body(std::integral_constant<int, kMaxGroup>(), row);
  }
  switch (num_rows - row) {
    case 1:
      return body(std::integral_constant<int, 1>(), row);
    case 2:
      return body(std::integral_constant<int, 2>(), row);
    case 3:
      return body(std::integral_constant<int, 3>(), row);
    case 4:
      return body(std::integral_constant<int, 4>(), row);
    case 5:
      return body(std::integral_constant<int, 5>(), row);
    default:
      return;
  }
}

// Adds the tile's keys to the running softmax of every row. Rows see keys [lo, hi) of it, lo < hi.
template <TileKind kKind>
HWY_INLINE void AttendTile(const TileRow* HWY_RESTRICT rows, int num_rows, const KvTile& tile,
                           size_t head_dim, float log2_scale) {
  ForGroups(num_rows, [&](auto group_size, int first) HWY_ATTR {
    constexpr int kRows = decltype(group_size)::value;
    const TileRow* group = rows + first;
    bool masked = tile.keep != nullptr || tile.visible != nullptr;
    for (int m = 0; m < kRows; ++m) masked |= group[m].lo > 0 || group[m].hi < kKvPageTokens;
    if (masked) {
      AttendGroup<kKind, kRows, true>(group, tile, head_dim, log2_scale);
    } else {
      AttendGroup<kKind, kRows, false>(group, tile, head_dim, log2_scale);
    }
  });
}

// --- rows: begin and end

HWY_INLINE void ResetState(float* HWY_RESTRICT state, size_t head_dim) {
  const FloatTag d;
  for (size_t i = 0; i < head_dim + kLanes; i += kLanes) hn::StoreU(hn::Zero(d), d, state + i);
  state[StateReference(head_dim)] = -std::numeric_limits<float>::infinity();
}

// Sum of the weights relative to the reference.
HWY_INLINE float StateSum(const float* HWY_RESTRICT state, size_t head_dim) {
  const FloatTag d;
  return hn::GetLane(hn::SumOfLanes(d, hn::LoadU(d, state + head_dim)));
}

// Writes the softmax average; zeros if nothing was seen.
HWY_INLINE void WriteRow(const float* HWY_RESTRICT state, size_t head_dim,
                         float* HWY_RESTRICT out) {
  const FloatTag d;
  const float sum = StateSum(state, head_dim);
  const FloatVec f = hn::Set(d, sum > 0 ? 1.0f / sum : 0.0f);
  for (size_t i = 0; i < head_dim; i += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, state + i), f), d, out + i);
  }
}

// Rounds one query row to bf16.
HWY_INLINE void RowToBf16(const float* HWY_RESTRICT q, size_t head_dim, uint32_t* HWY_RESTRICT to) {
  const FloatTag d;
  uint16_t* to16 = reinterpret_cast<uint16_t*>(to);
  for (size_t i = 0; i < head_dim; i += kLanes) StoreBf16(hn::LoadU(d, q + i), to16 + i);
}

// Calls body(std::integral_constant<TileKind>) for pages of `kv` under `math` on this machine.
template <class Body>
HWY_INLINE void WithTileKind(const PagedKv& kv, MathType math, const Body& body) {
  if (kv.dtype == DType::kF32) {
    body(std::integral_constant<TileKind, TileKind::kF32>());
  } else if (kTargetHasPairDot && math == MathType::kBF16 && MachineMultipliesBf16Pairs()) {
    body(std::integral_constant<TileKind, TileKind::kBf16Dot>());
  } else {
    body(std::integral_constant<TileKind, TileKind::kBf16Wide>());
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#endif  // VIDEONSA_KERNELS_CPU_TILE_INL_H_
