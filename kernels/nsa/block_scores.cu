#include "kernels/common/wide_tile.cuh"
#include "kernels/nsa/wide_scores.cuh"

namespace videonsa::cuda {
namespace {

// Tiles of block means that a CTA multiplies at a time; one per half of its warps.
constexpr int kTilesAtOnce = 2;

template <int kDim>
struct ScoreLayout {
  static constexpr int kPieces = kDim / 8;
  static constexpr int kStride = (kPieces | 1) * 8;
  static constexpr int kTileBytes = kTileKeys * kStride * 2;

  static int Bytes(int tokens, int heads) {
    return heads * tokens * kStride * 2 + kTilesAtOnce * kTileBytes;
  }
};

// CTA: kTokens rows of one KV head. A warp keeps 64 block means in registers and passes the queries
// of all heads of 16 tokens by them, so that the sum over heads stays in registers.
template <int kDim, int kTokens, ScoreKind kKind>
class ScoreBody {
  using Layout = ScoreLayout<kDim>;
  static constexpr int kKeyTiles = kTileKeys / 8;
  static constexpr int kSteps = kDim / 16;

 public:
  static constexpr int kThreads = kTokens / 16 * kTilesAtOnce * 32;

  __device__ ScoreBody(const BlockScores<__nv_bfloat16>& args, char* shared)
      : a_(args),
        kv_head_(blockIdx.y),
        first_(args.begin + static_cast<int>(gridDim.x - 1 - blockIdx.x) * kTokens),
        heads_(QueryHeads(args, kv_head_)),
        k_(reinterpret_cast<uint16_t*>(shared)),
        q_(reinterpret_cast<uint16_t*>(shared + kTilesAtOnce * Layout::kTileBytes)),
        token_(threadIdx.x / 32 % (kTokens / 16) * 16),
        half_(threadIdx.x / 32 / (kTokens / 16)),
        lane_(threadIdx.x % 32) {}

  __device__ void Run() {
    const int last = a_.row_begin + min(first_ + kTokens, a_.end) - 1;
    const int tiles = (last / kTileKeys + kTileKeys - 1) / kTileKeys;
    if (tiles == 0) return;
    if constexpr (kKind == ScoreKind::kLogs) {
      bool any = false;
      for (int i = threadIdx.x; i < kTokens; i += kThreads) any |= Alive(first_ + i);
      if (__syncthreads_or(any) == 0) return;
    }
    LoadTiles(0, tiles);
    LoadQueries();
    for (int tile = 0; tile < tiles; tile += kTilesAtOnce) {
      WaitCopies<0>();
      __syncthreads();
      uint32_t k[kSteps][kKeyTiles][2];
      TakeTile(k);
      __syncthreads();
      LoadTiles(tile + kTilesAtOnce, tiles);
      if (tile + half_ < tiles) ScoreTile(tile + half_, k);
    }
  }

 private:
  __device__ void LoadTiles(int tile, int tiles) const {
    for (int i = threadIdx.x; i < kTilesAtOnce * kTileKeys * Layout::kPieces; i += kThreads) {
      const int row = i / Layout::kPieces, piece = i % Layout::kPieces;
      const int64_t block = int64_t{tile} * kTileKeys + row;
      if (tile + row / kTileKeys >= tiles) break;
      CopyAsync16(k_ + row * Layout::kStride + piece * 8,
                  a_.k_means + (int64_t{kv_head_} * a_.blocks_stride + block) * kDim + piece * 8,
                  true);
    }
    CommitCopies();
  }

  __device__ bool Alive(int row) const { return Wanted(a_, row, kv_head_); }

  __device__ void LoadQueries() const {
    for (int i = threadIdx.x; i < heads_ * kTokens * Layout::kPieces; i += kThreads) {
      const int piece = i % Layout::kPieces, token = i / Layout::kPieces % kTokens;
      const int head = i / Layout::kPieces / kTokens;
      const int64_t row = first_ + token;
      const bool live =
          Alive(static_cast<int>(row)) && (a_.zero_unless == nullptr || a_.zero_unless[row]);
      *reinterpret_cast<uint4*>(q_ + (head * kTokens + token) * Layout::kStride + piece * 8) =
          LoadEightBf16(live ? a_.q.data : nullptr, a_.q.is_bf16,
                        row * a_.q.stride + HeadOf(a_, kv_head_, head) * kDim + piece * 8);
    }
  }

  __device__ void TakeTile(uint32_t (&k)[kSteps][kKeyTiles][2]) const {
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t b[4];
        const int key = half_ * kTileKeys + n * 8 + (lane_ & 7) + ((lane_ >> 4) << 3);
        LoadMatrix4(b, k_ + key * Layout::kStride + d * 16 + ((lane_ >> 3) & 1) * 8);
        k[d][n][0] = b[0], k[d][n][1] = b[1];
        k[d][n + 1][0] = b[2], k[d][n + 1][1] = b[3];
      }
    }
  }

  __device__ void ScoreTile(int tile, const uint32_t (&k)[kSteps][kKeyTiles][2]) const {
    const int64_t rows[2] = {first_ + token_ + lane_ / 4, first_ + token_ + lane_ / 4 + 8};
    const bool alive[2] = {Alive(static_cast<int>(rows[0])), Alive(static_cast<int>(rows[1]))};
    const float c = a_.scale * kLog2E;
    float top[kKeyTiles][4], sum[kKeyTiles][4];
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) top[n][j] = kNoLog, sum[n][j] = 0;
    }
    for (int i = 0; i < Addends(a_); ++i) {
      float minus[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) minus[r] = alive[r] ? -LogSum(a_, rows[r], kv_head_, i) : 0.0f;
      float s[kKeyTiles][4] = {};
      if (i < heads_) Multiply(i, k, s);
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          AddWeight<kKind>(fmaf(s[n][j], c, minus[j / 2]), top[n][j], sum[n][j]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!alive[r]) continue;
      float* to = a_.scores +
                  ((rows[r] - a_.begin) * a_.num_kv_heads + kv_head_) * a_.blocks_stride +
                  tile * kTileKeys + (lane_ & 3) * 2;
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        *reinterpret_cast<float2*>(to + n * 8) =
            make_float2(ScoreOf<kKind>(top[n][2 * r], sum[n][2 * r]),
                        ScoreOf<kKind>(top[n][2 * r + 1], sum[n][2 * r + 1]));
      }
    }
  }

  __device__ void Multiply(int head, const uint32_t (&k)[kSteps][kKeyTiles][2],
                           float (&s)[kKeyTiles][4]) const {
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
      uint32_t q[4];
      LoadMatrix4(q, q_ + (head * kTokens + token_ + (lane_ & 15)) * Layout::kStride + d * 16 +
                         (lane_ >> 4) * 8);
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) MultiplyAdd(s[n], q, k[d][n][0], k[d][n][1]);
    }
  }

  const BlockScores<__nv_bfloat16>& a_;
  const int kv_head_;
  const int first_;
  const int heads_;
  uint16_t* const k_;
  uint16_t* const q_;
  const int token_;
  const int half_;
  const int lane_;
};

template <int kDim, int kTokens, ScoreKind kKind>
__global__ void __launch_bounds__(ScoreBody<kDim, kTokens, kKind>::kThreads)
    BlockScoresKernel(const __grid_constant__ BlockScores<__nv_bfloat16> args) {
  extern __shared__ __align__(16) char shared[];
  ScoreBody<kDim, kTokens, kKind>(args, shared).Run();
}

// fp32: a warp takes one row of one KV head, a lane one block at a time.
template <ScoreKind kKind>
__global__ void __launch_bounds__(kTileThreads)
    ExactScoresKernel(const __grid_constant__ BlockScores<float> a) {
  const int row = a.begin + static_cast<int>(blockIdx.x) * (kTileThreads / 32) +
                  static_cast<int>(threadIdx.x / 32);
  const int kv_head = blockIdx.y;
  if (!Wanted(a, row, kv_head)) return;
  const bool zero = a.zero_unless != nullptr && !a.zero_unless[row];
  const int own = (a.row_begin + row) / kTileKeys;
  for (int block = threadIdx.x % 32; block < own; block += 32) {
    const float* k = a.k_means + (int64_t{kv_head} * a.blocks_stride + block) * a.head_dim;
    float top = kNoLog, sum = 0;
    const float c = a.scale * kLog2E;
    for (int i = 0; i < Addends(a); ++i) {
      float dot = 0;
      if (i < QueryHeads(a, kv_head) && !zero) {
        const int64_t at = row * a.q.stride + int64_t{HeadOf(a, kv_head, i)} * a.head_dim;
        for (int d = 0; d < a.head_dim; ++d) {
          dot = fmaf(LoadElement(a.q.data, a.q.is_bf16, at + d), k[d], dot);
        }
      }
      const float lse2 = LogSum(a, row, kv_head, i);
      float log2_weight = fmaf(dot, c, -lse2);
      if (a.top2 != nullptr) {
        const float top2 = a.top2[row * a.num_q_heads + HeadOf(a, kv_head, i)];
        log2_weight = (__fmul_rn(dot, c) - top2) + (top2 - lse2);
      }
      AddWeight<kKind>(log2_weight, top, sum);
    }
    a.scores[(int64_t{row - a.begin} * a.num_kv_heads + kv_head) * a.blocks_stride + block] =
        ScoreOf<kKind>(top, sum);
  }
}

template <int kDim, int kTokens, ScoreKind kKind>
cudaError_t LaunchTensor(const BlockScores<__nv_bfloat16>& args, int heads, cudaStream_t stream) {
  const int bytes = ScoreLayout<kDim>::Bytes(kTokens, heads);
  const auto kernel = BlockScoresKernel<kDim, kTokens, kKind>;
  const cudaError_t set =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (set != cudaSuccess) return set;
  const dim3 grid(static_cast<unsigned>((args.end - args.begin + kTokens - 1) / kTokens),
                  static_cast<unsigned>(args.num_kv_heads));
  kernel<<<grid, ScoreBody<kDim, kTokens, kKind>::kThreads, bytes, stream>>>(args);
  return cudaGetLastError();
}

template <int kDim, int kPairs, ScoreKind kKind>
cudaError_t LaunchWide(const BlockScores<__nv_bfloat16>& args, cudaStream_t stream) {
  using Layout = WideScoreLayout<kDim, kPairs>;
  const auto kernel = WideScoresKernel<kDim, kPairs, kKind>;
  const cudaError_t set =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Layout::kBytes);
  if (set != cudaSuccess) return set;
  const int tokens = Layout::kTokens;
  const dim3 grid(static_cast<unsigned>((args.end - args.begin + tokens - 1) / tokens),
                  static_cast<unsigned>(args.num_kv_heads));
  kernel<<<grid, Layout::kThreads, Layout::kBytes, stream>>>(args);
  return cudaGetLastError();
}

template <typename T, typename Body>
cudaError_t WithScoreKind(const BlockScores<T>& args, const Body& body) {
  if (args.steep != nullptr) {
    return body(std::integral_constant<ScoreKind, ScoreKind::kLogs>{});
  }
  if (args.heads == HeadMap::kSlots) {
    return body(std::integral_constant<ScoreKind, ScoreKind::kSlotWeights>{});
  }
  return body(std::integral_constant<ScoreKind, ScoreKind::kWeights>{});
}

}  // namespace

template <>
cudaError_t LaunchBlockScores(const BlockScores<__nv_bfloat16>& args, cudaStream_t stream) {
  constexpr int kSharedBytes = 200 * 1024;
  const int heads = QueryHeads(args, 0);  // KV head 0 has the most
  return DispatchHeadDim(args.head_dim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    if constexpr (kDim % 64 == 0) {
      if (HasWideTiles()) {
        return WithScoreKind(args, [&](auto kind) {
          constexpr ScoreKind kKind = decltype(kind)::value;
          return heads <= 8 ? LaunchWide<kDim, 4, kKind>(args, stream)
                            : LaunchWide<kDim, 8, kKind>(args, stream);
        });
      }
    }
    const bool fits = ScoreLayout<kDim>::Bytes(64, heads) <= kSharedBytes;
    return WithScoreKind(args, [&](auto kind) {
      constexpr ScoreKind kKind = decltype(kind)::value;
      return fits ? LaunchTensor<kDim, 64, kKind>(args, heads, stream)
                  : LaunchTensor<kDim, 32, kKind>(args, heads, stream);
    });
  });
}

template <>
cudaError_t LaunchBlockScores(const BlockScores<float>& args, cudaStream_t stream) {
  constexpr int kRows = kTileThreads / 32;
  const dim3 grid(static_cast<unsigned>((args.end - args.begin + kRows - 1) / kRows),
                  static_cast<unsigned>(args.num_kv_heads));
  return WithScoreKind(args, [&](auto kind) {
    // Sums of the exact mode keep what lies below the normal range.
    constexpr ScoreKind kKind = decltype(kind)::value == ScoreKind::kWeights
                                    ? ScoreKind::kSlotWeights
                                    : decltype(kind)::value;
    ExactScoresKernel<kKind><<<grid, kTileThreads, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

}  // namespace videonsa::cuda
