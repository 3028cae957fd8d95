#include "kernels/nsa/nsa_params.h"
#include "kernels/nsa/nsa_stages.cuh"

namespace videonsa::cuda {
namespace {

constexpr int kWarps = 8;
constexpr float kLargest = 3.402823466e38f;
constexpr double kTallyUnit = static_cast<double>(1ull << kCudaTallyShift);

// A warp chooses for one row and KV head; a CTA for kWarps rows of one KV head.
struct ChoiceRow {
  int row = 0;
  int kv_head = 0;
  int position = 0;
  int own = 0;
  bool alive = false;
  bool counted = false;
  const float* scores = nullptr;
  uint8_t* steep = nullptr;
  int32_t* blocks = nullptr;

  __device__ explicit ChoiceRow(const BlockChoice& c)
      : row(c.begin + static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x / 32)),
        kv_head(static_cast<int>(blockIdx.y)),
        position(c.row_begin + row),
        own(position / kTileKeys) {
    if (row >= c.end) return;
    const int64_t at = int64_t{row} * c.num_kv_heads + kv_head;
    scores = c.scores + (at - int64_t{c.begin} * c.num_kv_heads) * c.blocks_stride;
    blocks = c.blocks + at * c.count;
    alive = c.only == nullptr || c.only[row];
    if (c.steep != nullptr) steep = c.steep + (at - int64_t{c.begin} * c.num_kv_heads);
    if (c.logs) alive = alive && *steep != 0;
    counted = alive && (c.is_vision == nullptr || c.is_vision[row]);
    if (alive || c.logs) return;
    if (steep != nullptr && threadIdx.x % 32 == 0) *steep = 0;
    for (int i = threadIdx.x % 32; i < c.count; i += 32) blocks[i] = -1;
  }
};

__device__ void AddWeight(unsigned long long* to, double weight) {
  atomicAdd(to, static_cast<unsigned long long>(weight * kTallyUnit + 0.5));
}

// Adds the pairs of a CTA's rows; every thread of the CTA calls.
__device__ void CountPairs(const BlockChoice& c, int pairs) {
  if (c.tally.selected_pairs == nullptr) return;
  __shared__ int sums[kWarps];
  pairs = __reduce_add_sync(kFullWarp, pairs);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = pairs;
  __syncthreads();
  if (threadIdx.x != 0) return;
  unsigned long long sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += static_cast<unsigned>(sums[i]);
  if (sum > 0) atomicAdd(&c.tally.selected_pairs[blockIdx.y], sum);
}

// Scores as unsigned numbers in their order: weights are not negative, logarithms may be.
template <bool kLogs>
__device__ uint32_t OrderOf(float score) {
  const uint32_t bits = __float_as_uint(score);
  if (!kLogs) return bits;
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
template <bool kLogs>
__device__ float ScoreOf(uint32_t order) {
  if (!kLogs) return __uint_as_float(order);
  return __uint_as_float(order >> 31 != 0 ? order & 0x7FFFFFFFu : ~order);
}

// The numbers of a row's scores, 32 at a time: body(first + lane, number), 0 past the end. Every
// lane of the warp calls.
template <bool kLogs, typename Body>
__device__ void ForScores(const float* scores, int own, const Body& body) {
#pragma unroll 8
  for (int first = 0; first < own; first += 32) {
    const int block = first + static_cast<int>(threadIdx.x % 32);
    body(block, block < own ? OrderOf<kLogs>(scores[block]) : 0u);
  }
}

// A number that at least `need` scores reach: the need-th largest of the lanes' maxima.
// Requires: need <= 32.
template <bool kLogs>
__device__ uint32_t LowerBound(const float* scores, int own, int need) {
  uint32_t top = 0;
  ForScores<kLogs>(scores, own, [&](int, uint32_t x) { top = max(top, x); });
  const int lane = threadIdx.x % 32;
  for (int size = 2; size <= 32; size *= 2) {  // bitonic, descending
    for (int d = size / 2; d > 0; d /= 2) {
      const uint32_t other = __shfl_xor_sync(kFullWarp, top, d);
      const bool takes_larger = ((lane & d) == 0) == ((lane & size) == 0);
      top = takes_larger ? max(top, other) : min(top, other);
    }
  }
  return __shfl_sync(kFullWarp, top, need - 1);
}

// The need-th largest of what for_each passes, found bit by bit from the top; stops early at a
// number that exactly `need` reach. Requires: at least `need` scores.
template <bool kLogs, typename ForEach>
__device__ uint32_t Threshold(int need, const ForEach& for_each) {
  uint32_t threshold = 0;
  for (uint32_t bit = 1u << (kLogs ? 31 : 30); bit != 0; bit >>= 1) {
    const uint32_t candidate = threshold | bit;
    int count = 0;
    for_each([&](int, uint32_t x) { count += x >= candidate; });
    count = __reduce_add_sync(kFullWarp, count);
    if (count < need) continue;
    threshold = candidate;
    if (count == need) break;
  }
  return threshold;
}

// Candidates of one warp that are kept close while the threshold is searched.
constexpr int kCandidates = 256;

// The threshold of the whole row: few scores reach the lower bound, unless many are equal.
template <bool kLogs>
__device__ uint32_t RowThreshold(const float* scores, int own, int need, uint32_t* kept) {
  const int lane = threadIdx.x % 32;
  int used = kCandidates + 1;
  uint32_t bound = 0;
  if (need <= 32) {
    bound = LowerBound<kLogs>(scores, own, need);
    used = 0;
    ForScores<kLogs>(scores, own, [&](int block, uint32_t x) {
      const bool take = block < own && x >= bound;
      const unsigned taken = __ballot_sync(kFullWarp, take);
      const int at = used + __popc(taken & ((1u << lane) - 1));
      if (take && at < kCandidates) kept[at] = x;
      used += __popc(taken);
    });
    __syncwarp();
  }
  if (used > kCandidates) {
    return Threshold<kLogs>(need, [&](const auto& body) { ForScores<kLogs>(scores, own, body); });
  }
  const uint32_t threshold = Threshold<kLogs>(need, [&](const auto& body) {
    for (int i = lane; i < used; i += 32) body(i, kept[i]);
  });
  return max(threshold, bound);  // scores below the bound were not among the candidates
}

// The chosen earlier blocks of a row: their number, and their lightest and heaviest scores.
struct Taken {
  int used = 0;
  uint32_t lightest = 0;
  uint32_t heaviest = 0;
};

// Writes the chosen earlier blocks, ascending: all above the threshold, and of those equal to it
// the lowest.
template <bool kLogs>
__device__ Taken TakeBlocks(const ChoiceRow& r, int need, uint32_t threshold) {
  const int lane = threadIdx.x % 32;
  const unsigned before = (1u << lane) - 1;
  int above = 0;
  ForScores<kLogs>(r.scores, r.own,
                   [&](int block, uint32_t x) { above += block < r.own && x > threshold; });
  int ties = need - __reduce_add_sync(kFullWarp, above);
  int used = 0;
  uint32_t lightest = 0xFFFFFFFFu, heaviest = 0;
  ForScores<kLogs>(r.scores, r.own, [&](int block, uint32_t x) {
    const bool real = block < r.own;
    const unsigned equal = __ballot_sync(kFullWarp, real && x == threshold);
    const bool tie = real && x == threshold && __popc(equal & before) < ties;
    ties -= min(ties, __popc(equal));
    const bool take = tie || (real && x > threshold);
    const unsigned taken = __ballot_sync(kFullWarp, take);
    if (take) {
      r.blocks[used + __popc(taken & before)] = block;
      lightest = min(lightest, x);
      heaviest = max(heaviest, x);
    }
    used += __popc(taken);
  });
  __syncwarp();
  return {used, __reduce_min_sync(kFullWarp, lightest), __reduce_max_sync(kFullWarp, heaviest)};
}

// Shares of the chosen earlier blocks in the report.
template <bool kLogs>
__device__ void ReportWeights(const BlockChoice& c, const ChoiceRow& r, const Taken& taken) {
  const int lane = threadIdx.x % 32;
  if (taken.used == 0) {
    if (lane == 0) AddWeight(c.tally.selection_weight + r.own, 1.0);
    return;
  }
  const float top = ScoreOf<kLogs>(taken.heaviest);
  const auto weight = [&](int i) {
    const float score = r.scores[r.blocks[i]];
    return kLogs ? exp2f(score - top) : score;
  };
  float sum = 0;
  for (int i = lane; i < taken.used; i += 32) sum += weight(i);
  sum = WarpSum(sum);
  for (int i = lane; i < taken.used; i += 32) {
    AddWeight(c.tally.selection_weight + r.blocks[i], double{weight(i)} / sum);
  }
}

// Whether only logarithms tell the row's blocks apart; where all are chosen, their shares alone.
__device__ bool IsSteep(const BlockChoice& c, const ChoiceRow& r, const Taken& taken) {
  if (c.steep == nullptr || taken.used == 0) return false;
  if (taken.used < r.own) return ScoreOf<false>(taken.lightest) < kLeastPlainWeight;
  return c.tally.selection_weight != nullptr && ScoreOf<false>(taken.heaviest) < kLeastPlainWeight;
}

template <bool kLogs>
__global__ void __launch_bounds__(kWarps * 32) CausalChoiceKernel(BlockChoice c) {
  __shared__ uint32_t candidates[kWarps][kCandidates];
  const ChoiceRow r(c);
  const int lane = threadIdx.x % 32;
  int pairs = 0;
  if (r.alive) {
    const int need = min(c.count - 1, r.own);
    Taken taken;
    if (need > 0) {
      const uint32_t threshold =
          RowThreshold<kLogs>(r.scores, r.own, need, candidates[threadIdx.x / 32]);
      taken = TakeBlocks<kLogs>(r, need, threshold);
    }
    const int used = taken.used;
    if (lane == 0) r.blocks[used] = r.own;
    for (int i = used + 1 + lane; i < c.count; i += 32) r.blocks[i] = -1;
    const bool steep = !kLogs && IsSteep(c, r, taken);
    if (!kLogs && r.steep != nullptr && lane == 0) *r.steep = steep;
    const bool counted = r.counted && !steep;
    if (counted && lane == 0) pairs = used * kTileKeys + r.position % kTileKeys + 1;
    if (counted && c.tally.selection_weight != nullptr) ReportWeights<kLogs>(c, r, taken);
  }
  CountPairs(c, pairs);
}

// The 64 lanes of the network: thread l holds lanes l and l + 32.
struct Network {
  float score[2];
  int index[2];

  __device__ void Load(const float* scores, int own, int chunk) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int block = chunk * 64 + k * 32 + static_cast<int>(threadIdx.x % 32);
      score[k] = block < own ? scores[block] : block == own ? 16.0f : 0.0f;
      index[k] = block <= own ? block : -1;
    }
  }

  // A pair is exchanged when (left > right) differs from the wanted direction.
  template <typename Descending>
  __device__ void Merge(int t, const Descending& descending) {
    const int lane = threadIdx.x % 32;
    for (int d = 1 << (t - 1); d > 0; d >>= 1) {
      if (d == 32) {
        if ((score[0] > score[1]) != descending(lane)) {
          const float s = score[0];
          score[0] = score[1], score[1] = s;
          const int i = index[0];
          index[0] = index[1], index[1] = i;
        }
        continue;
      }
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const float other = __shfl_xor_sync(kFullWarp, score[k], d);
        const int other_index = __shfl_xor_sync(kFullWarp, index[k], d);
        const bool is_right = (lane & d) != 0;
        const float left = is_right ? other : score[k], right = is_right ? score[k] : other;
        if ((left > right) != descending((lane & ~d) + k * 32)) {
          score[k] = other;
          index[k] = other_index;
        }
      }
    }
  }
};

__global__ void __launch_bounds__(kWarps * 32) NetworkChoiceKernel(BlockChoice c) {
  const ChoiceRow r(c);
  const int lane = threadIdx.x % 32;
  int pairs = 0;
  if (r.alive) {
    Network kept, chunk;
    for (int x = 0; x <= r.own / 64; ++x) {
      chunk.Load(r.scores, r.own, x);
      for (int t = 1; t <= 5; ++t) {
        chunk.Merge(t, [t](int j) { return (j >> t & 1) != 0; });
      }
      if (x == 0) {
        kept = chunk;
      } else {
        chunk.Merge(6, [](int) { return false; });
        kept.score[1] = chunk.score[1];
        kept.index[1] = chunk.index[1];
      }
      kept.Merge(6, [](int) { return true; });
    }
    const int block = lane < c.count ? kept.index[0] : -1;
    if (lane < c.count) r.blocks[lane] = block;
    if (r.counted) {
      if (block >= 0) pairs = block == r.own ? r.position % kTileKeys + 1 : kTileKeys;
      if (c.tally.saturated_rows != nullptr) {
        // The network keeps the highest scores, so a saturated one is among them.
        const bool saturated =
            __any_sync(kFullWarp, block >= 0 && block != r.own && kept.score[0] >= kLargest);
        if (saturated && lane == 0) atomicAdd(c.tally.saturated_rows, 1ull);
      }
      if (c.tally.selection_weight != nullptr) {
        const bool earlier = block >= 0 && block != r.own;
        const float weight = earlier ? kept.score[0] : 0.0f;
        double sum = weight;
        for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(kFullWarp, sum, d);
        if (!(sum > 0)) {
          if (lane == 0) AddWeight(c.tally.selection_weight + r.own, 1.0);
        } else if (earlier) {
          AddWeight(c.tally.selection_weight + block, weight / sum);
        }
      }
    }
  }
  CountPairs(c, pairs);
}

dim3 ChoiceGrid(const BlockChoice& c) {
  return dim3(static_cast<unsigned>((c.end - c.begin + kWarps - 1) / kWarps),
              static_cast<unsigned>(c.num_kv_heads));
}

}  // namespace

cudaError_t LaunchCausalChoice(const BlockChoice& c, cudaStream_t stream) {
  if (c.end <= c.begin) return cudaSuccess;
  const auto kernel = c.logs ? CausalChoiceKernel<true> : CausalChoiceKernel<false>;
  kernel<<<ChoiceGrid(c), kWarps * 32, 0, stream>>>(c);
  return cudaGetLastError();
}

cudaError_t LaunchNetworkChoice(const BlockChoice& c, cudaStream_t stream) {
  if (c.end <= c.begin) return cudaSuccess;
  if (c.count > 32) return cudaErrorInvalidValue;
  NetworkChoiceKernel<<<ChoiceGrid(c), kWarps * 32, 0, stream>>>(c);
  return cudaGetLastError();
}

}  // namespace videonsa::cuda
