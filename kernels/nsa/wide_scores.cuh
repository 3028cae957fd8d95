#pragma once

#include "kernels/common/wgmma.cuh"
#include "kernels/nsa/score_rows.cuh"

/// Scores of blocks on the warpgroup products of Hopper. A CTA keeps all heads' queries of 32
/// tokens of one KV head; its warpgroups take tiles of 64 block means in turn. The 64 rows of a
/// product are the tokens with two heads each, so that a thread holds both of a token's logits and
/// the sum over the heads stays where it is.
namespace videonsa::cuda {

template <int kDim, int kPairs>
struct WideScoreLayout {
  static constexpr int kTokens = 32;
  static constexpr int kGroups = kPairs <= 4 ? 4 : 3;  // warpgroups
  static constexpr int kStages = 2;
  static constexpr int kThreads = 128 * kGroups;
  static constexpr int kBorder = 1024;
  static constexpr int kTileBytes = 64 * kDim * 2;  // of block means, or of a pair's queries
  static constexpr int kKeysAt = kPairs * kTileBytes;
  static constexpr int kSumsAt = kKeysAt + kGroups * kStages * kTileBytes;
  static constexpr int kMaxAddends = 2 * kPairs;
  static constexpr int kBytes = kBorder + kSumsAt + kMaxAddends * kTokens * 4;
};

#ifdef VIDEONSA_WGMMA
template <int kDim, int kPairs, ScoreKind kKind>
class WideScores {
  using Layout = WideScoreLayout<kDim, kPairs>;
  static constexpr int kStages = Layout::kStages;
  static constexpr int kTokens = Layout::kTokens;
  static constexpr int kKeyTiles = kTileKeys / 8;
  static constexpr uint32_t kColumnTile = 64 * 128;  // bytes of 64 columns
  // Weights of slots span all of fp32. They are squares of their roots, which lie in the range of
  // the fast power of two, below which it gives 0.
  static constexpr float kShare = kKind == ScoreKind::kSlotWeights ? 0.5f : 1.0f;
  using Logits = float[kKeyTiles][4];
  using Sums = float[kKeyTiles][2];

 public:
  __device__ WideScores(const BlockScores<__nv_bfloat16>& args, char* shared)
      : a_(args),
        kv_head_(blockIdx.y),
        first_(args.begin + static_cast<int>(gridDim.x - 1 - blockIdx.x) * kTokens),
        heads_(QueryHeads(args, kv_head_)),
        address_((SharedAddress(shared) + Layout::kBorder - 1) / Layout::kBorder * Layout::kBorder),
        shared_(shared + (address_ - SharedAddress(shared))),
        group_(threadIdx.x / 128),
        lane_(threadIdx.x % 32),
        token_(threadIdx.x / 32 % 4 * 8 + lane_ / 4) {}

  __device__ void Run() {
    const int last = a_.row_begin + min(first_ + kTokens, a_.end) - 1;
    const int tiles = (last / kTileKeys + kTileKeys - 1) / kTileKeys;
    if (tiles == 0) return;
    const int token = static_cast<int>(threadIdx.x);
    const bool wanted = token < kTokens && Wanted(a_, first_ + token, kv_head_);
    if (__syncthreads_or(wanted) == 0) return;
    if (group_ < tiles) LoadTile(group_, 0);
    LoadQueries();
    WaitCopies<0>();
    FenceShared();
    __syncthreads();
    for (int tile = group_, stage = 0; tile < tiles; tile += Layout::kGroups) {
      const int next = tile + Layout::kGroups;
      WaitCopies<0>();
      FenceShared();
      Meet();
      if (next < tiles) LoadTile(next, stage ^ 1);
      CommitCopies();
      ScoreTile(tile, stage);
      stage ^= 1;
    }
  }

 private:
  __device__ uint32_t KeyOffset(int stage) const {
    return Layout::kKeysAt + (group_ * kStages + stage) * Layout::kTileBytes;
  }
  __device__ float* MinusLogSums() const {
    return reinterpret_cast<float*>(shared_ + Layout::kSumsAt);  // [addends][kTokens]
  }
  // The warpgroup's own barrier.
  __device__ void Meet() const { asm volatile("bar.sync %0, 128;\n" ::"r"(1 + group_) : "memory"); }

  __device__ void LoadTile(int tile, int stage) const {
    KeyTile<__nv_bfloat16> means;
    means.k =
        a_.k_means + (int64_t{kv_head_} * a_.blocks_stride + int64_t{tile} * kTileKeys) * kDim;
    means.row_stride = kDim;
    means.live = kTileKeys;
    CopyRowsAsync<kDim / 8>(means, means.k, shared_ + KeyOffset(stage), kColumnTile);
  }

  // Row r of pair p: token r / 16 * 8 + r % 8, head 2 p + r % 16 / 8. Slots without a query have a
  // zero one, as heads that only fill a pair have, whose logits nobody adds.
  __device__ void LoadQueries() const {
    constexpr int kPieces = kDim / 8;
#pragma unroll 4
    for (int i = threadIdx.x; i < kPairs * 64 * kPieces; i += Layout::kThreads) {
      const int piece = i % kPieces, row = i / kPieces % 64, pair = i / kPieces / 64;
      const int head = 2 * pair + row % 16 / 8;
      const int64_t token = first_ + row / 16 * 8 + row % 8;
      const bool live = head < heads_ && Wanted(a_, static_cast<int>(token), kv_head_) &&
                        (a_.zero_unless == nullptr || a_.zero_unless[token]);
      char* to = shared_ + pair * Layout::kTileBytes + piece / 8 * kColumnTile +
                 SwizzledOffset(row, piece % 8);
      const int64_t at =
          live ? token * a_.q.stride + HeadOf(a_, kv_head_, head) * kDim + piece * 8 : 0;
      if (a_.q.is_bf16) {
        CopyAsync16(to, static_cast<const uint16_t*>(a_.q.data) + at, live);
      } else {
        *reinterpret_cast<uint4*>(to) = LoadEightBf16(live ? a_.q.data : nullptr, false, at);
      }
    }
    CommitCopies();
    for (int i = threadIdx.x; i < Addends(a_) * kTokens; i += Layout::kThreads) {
      const int row = first_ + i % kTokens;
      MinusLogSums()[i] =
          Wanted(a_, row, kv_head_) ? -LogSum(a_, row, kv_head_, i / kTokens) : 0.0f;
    }
  }

  __device__ void Multiply(int pair, int stage, Logits& s) const {
    const uint32_t q = address_ + pair * Layout::kTileBytes, k = address_ + KeyOffset(stage);
    FenceProducts();
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      const uint32_t at = d / 4 * kColumnTile + d % 4 * 32;
      MultiplyTiles(s, TileDescriptor(q + at, 16, 1024), TileDescriptor(k + at, 16, 1024), d > 0);
    }
    CommitProducts();
  }

  // The next pair's products run beside this one's exponentials.
  __device__ void ScoreTile(int tile, int stage) const {
    Logits s[2];
    Sums top, sum;
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) top[n][j] = kNoLog, sum[n][j] = 0;
    }
    Multiply(0, stage, s[0]);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      if (pair + 1 < kPairs) {
        Multiply(pair + 1, stage, s[(pair + 1) % 2]);
        WaitProducts<1>();
      } else {
        WaitProducts<0>();
      }
      AfterWait(s[pair % 2]);
      Add(pair, s[pair % 2], top, sum);
    }
    Store(tile, top, sum);
  }

  __device__ void Add(int pair, const Logits& s, Sums& top, Sums& sum) const {
    const float c = kShare * a_.scale * kLog2E;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (2 * pair + i >= Addends(a_)) break;
      const float minus = kShare * MinusLogSums()[(2 * pair + i) * kTokens + token_];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float x = fmaf(s[n][2 * i + j], c, minus);
          if constexpr (kKind == ScoreKind::kSlotWeights) {
            const float root = FastExp2(x);
            sum[n][j] = fmaf(root, root, sum[n][j]);
          } else {
            AddWeight<kKind>(x, top[n][j], sum[n][j]);
          }
        }
      }
    }
  }

  __device__ void Store(int tile, const Sums& top, const Sums& sum) const {
    const int64_t row = first_ + token_;
    if (!Wanted(a_, static_cast<int>(row), kv_head_)) return;
    float* to = a_.scores + ((row - a_.begin) * a_.num_kv_heads + kv_head_) * a_.blocks_stride +
                tile * kTileKeys + (lane_ & 3) * 2;
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
      *reinterpret_cast<float2*>(to + n * 8) =
          make_float2(ScoreOf<kKind>(top[n][0], sum[n][0]), ScoreOf<kKind>(top[n][1], sum[n][1]));
    }
  }

  const BlockScores<__nv_bfloat16>& a_;
  const int kv_head_;
  const int first_;
  const int heads_;
  const uint32_t address_;
  char* const shared_;
  const int group_;
  const int lane_;
  const int token_;
};
#endif  // VIDEONSA_WGMMA

template <int kDim, int kPairs, ScoreKind kKind>
__global__ void __launch_bounds__(WideScoreLayout<kDim, kPairs>::kThreads, 1)
    WideScoresKernel(const __grid_constant__ BlockScores<__nv_bfloat16> args) {
#ifdef VIDEONSA_WGMMA
  extern __shared__ __align__(16) char shared[];
  WideScores<kDim, kPairs, kKind>(args, shared).Run();
#else
  __trap();  // never launched: the launcher asks for the architecture
#endif
}

}  // namespace videonsa::cuda
