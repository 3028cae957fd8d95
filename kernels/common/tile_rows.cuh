#pragma once

#include "kernels/common/mma.cuh"

/// What the bodies of attention_tile.cuh and wide_tile.cuh share: what a policy speaks in, and rows
/// in the middle of their softmax.
namespace videonsa::cuda {

inline constexpr int kTileKeys = 64;
inline constexpr int kTileThreads = 128;

template <typename Element>
struct KeyTile {
  const Element* k = nullptr;
  const Element* v = nullptr;
  int64_t row_stride = 0;         ///< elements between keys
  int first = 0;                  ///< position of column 0
  int live = 0;                   ///< columns from here on read as zero rows
  const uint8_t* keep = nullptr;  ///< [live] or null: columns marked 0 read as zero rows
};

struct KeyRange {
  int lo = 0;
  int hi = 0;
};

struct Query {
  const void* data = nullptr;  ///< null: a zero query
  int64_t offset = 0;
  bool is_bf16 = false;
};

/// out = add + factor * row.
struct RowOutput {
  void* data = nullptr;  ///< null: not written
  int64_t offset = 0;
  bool is_bf16 = false;
  const float* add = nullptr;  ///< the row's addend, may be the output itself; null: 0
  float factor = 1;
  float* lse2 = nullptr;  ///< log2 of the sum of exponentials, if wanted
  float* top2 = nullptr;  ///< log2 of the largest of them, if wanted (fp32 body only)
};

/// The largest of `top` and a row's logits: entries 2 half and the next of every s[n], held by the
/// four lanes of a quad. Four chains, because a warp has few neighbours to wait with.
template <int kTiles>
__device__ inline float RowTop(const float (&s)[kTiles][4], int half, float top) {
  static_assert(kTiles % 4 == 0);
  float tops[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) tops[i] = fmaxf(s[i][half * 2], s[i][half * 2 + 1]);
#pragma unroll
  for (int n = 4; n < kTiles; ++n) {
    tops[n % 4] = fmaxf(tops[n % 4], fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
  }
  top = fmaxf(top, fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3])));
  top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 1));
  return fmaxf(top, __shfl_xor_sync(kFullWarp, top, 2));
}

/// Turns that row's logits into 2^(logit log2_scale - base); gives the lane's share of their sum.
template <int kTiles>
__device__ inline float RowWeights(float (&s)[kTiles][4], int half, float log2_scale, float base) {
  float sums[4] = {};
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float& x = s[n][half * 2 + i];
      x = FastExp2(fmaf(x, log2_scale, -base));
      sums[n % 2 * 2 + i] += x;
    }
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// What a warp knows of its 16 kMTiles rows: who they are, and their softmax so far. Lane l holds
/// columns 2 (l % 4) and the next of every eight, of rows l / 4 and l / 4 + 8 of each 16. kKeys
/// keys are weighed at a time.
template <int kDim, int kMTiles, typename Policy, int kKeys = kTileKeys>
class TileRows {
 protected:
  using Cta = typename Policy::Cta;
  using Tile = KeyTile<typename Policy::Element>;
  static constexpr int kRowsPerWarp = 16 * kMTiles;
  static constexpr int kKeyTiles = kKeys / 8;
  static constexpr int kDimTiles = kDim / 8;
  using Logits = float[kMTiles][kKeyTiles][4];
  using Weights = uint32_t[kMTiles][kKeyTiles / 2][4];

  __device__ TileRows(const Policy& policy, Cta& cta, float scale)
      : policy_(policy),
        cta_(cta),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        log2_scale_(scale * kLog2E) {}

  __device__ int RowOf(int m, int half) const {
    return warp_ * kRowsPerWarp + m * 16 + half * 8 + lane_ / 4;
  }

  __device__ void Reset() {
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        position_[m][half] = policy_.Position(cta_, RowOf(m, half));
        top_[m][half] = kMinusInf;
        sum_[m][half] = 0;
      }
#pragma unroll
      for (int n = 0; n < kDimTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out_[m][n][i] = 0;
      }
    }
  }

  // Columns of the tile that the rows see.
  struct Seen {
    int lo[kMTiles][2];
    int hi[kMTiles][2];
    bool any = false;
    bool whole = true;
  };
  __device__ Seen SeenOf(const Tile& tile, int step) const {
    Seen seen;
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        KeyRange range;
        if (position_[m][half] >= 0) {
          range = policy_.Range(cta_, tile, step, RowOf(m, half), position_[m][half]);
        }
        seen.lo[m][half] = range.lo;
        seen.hi[m][half] = range.hi;
        seen.any |= range.hi > range.lo;
        seen.whole &= range.lo <= 0 && range.hi >= kTileKeys;
      }
    }
    return seen;
  }

  // Hides what rows do not see of the tile that begins at column 8 kFirst of the logits.
  template <int kFirst = 0>
  __device__ void Mask(const Seen& seen, Logits& s) const {
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kTileKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = n * 8 + (lane_ & 3) * 2 + (i & 1);
          const bool sees = column >= seen.lo[m][i >> 1] && column < seen.hi[m][i >> 1];
          float& x = s[m][kFirst + n][i];
          x = sees ? x : kMinusInf;
        }
      }
    }
  }

  // Turns logits into weights relative to the running maximum; what was summed before is `shrink`
  // of what it was.
  __device__ void Weigh(Logits& s, float (&shrink)[kMTiles][2]) {
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
      const float top[2] = {RowTop(s[m], 0, top_[m][0]), RowTop(s[m], 1, top_[m][1])};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float base = top[half] == kMinusInf ? 0.0f : top[half] * log2_scale_;
        // Exactly 1 if nothing higher came, so that tiles a row does not see leave it alone.
        shrink[m][half] =
            top[half] == top_[m][half] ? 1.0f : FastExp2(fmaf(top_[m][half], log2_scale_, -base));
        top_[m][half] = top[half];
        const float sum = RowWeights(s[m], half, log2_scale_, base);
        sum_[m][half] = fmaf(sum_[m][half], shrink[m][half], sum);
      }
    }
  }

  __device__ void Shrink(const float (&shrink)[kMTiles][2]) {
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
      // Most tiles bring no row of the warp a new maximum.
      if (__all_sync(kFullWarp, shrink[m][0] == 1.0f && shrink[m][1] == 1.0f)) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int n = 0; n < kDimTiles; ++n) {
          out_[m][n][half * 2] *= shrink[m][half];
          out_[m][n][half * 2 + 1] *= shrink[m][half];
        }
      }
    }
  }

  // Weights as the first operand of the product with values.
  __device__ static void Pack(const Logits& s, Weights& p) {
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        p[m][n / 2][(n & 1) * 2] = PackBf16(s[m][n][0], s[m][n][1]);
        p[m][n / 2][(n & 1) * 2 + 1] = PackBf16(s[m][n][2], s[m][n][3]);
      }
    }
  }

  __device__ void Store() {
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = sum_[m][half];
        sum += __shfl_xor_sync(kFullWarp, sum, 1);
        sum += __shfl_xor_sync(kFullWarp, sum, 2);
        if (position_[m][half] < 0) continue;
        const RowOutput to = policy_.OutputOf(cta_, RowOf(m, half));
        if (to.lse2 != nullptr && (lane_ & 3) == 0) {
          *to.lse2 = sum > 0 ? fmaf(top_[m][half], log2_scale_, log2f(sum)) : kMinusInf;
        }
        if (to.data == nullptr) continue;
        const float factor = sum > 0 ? to.factor / sum : 0.0f;
        StoreRow(to, m, half, factor);
      }
    }
  }

 private:
  // The addends are read before anything is written: the compiler must assume that both overlap,
  // and would wait for every one of them otherwise.
  __device__ void StoreRow(const RowOutput& to, int m, int half, float factor) {
    const int column = (lane_ & 3) * 2;
    float2 before[kDimTiles];
#pragma unroll
    for (int n = 0; n < kDimTiles; ++n) {
      before[n] = to.add == nullptr ? make_float2(0.0f, 0.0f)
                                    : *reinterpret_cast<const float2*>(to.add + column + n * 8);
    }
#pragma unroll
    for (int n = 0; n < kDimTiles; ++n) {
      const float x = fmaf(out_[m][n][half * 2], factor, before[n].x);
      const float y = fmaf(out_[m][n][half * 2 + 1], factor, before[n].y);
      const int64_t at = to.offset + column + n * 8;
      if (to.is_bf16) {
        *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(to.data) + at) = PackBf16(x, y);
      } else {
        *reinterpret_cast<float2*>(static_cast<float*>(to.data) + at) = make_float2(x, y);
      }
    }
  }

 protected:
  const Policy& policy_;
  Cta& cta_;
  const int warp_;
  const int lane_;
  const float log2_scale_;
  int position_[kMTiles][2];
  float top_[kMTiles][2];
  float sum_[kMTiles][2];
  float out_[kMTiles][kDimTiles][4];
};

}  // namespace videonsa::cuda
