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
    counted = alive && (c.is_vision == nullptr || c.is_vision[row]);
    if (alive) return;
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

// Scores of a row as unsigned numbers in the order of the scores (none is negative): lane l holds
// blocks l, l + 32, ... in registers if there are at most 32 kPerLane of them.
template <int kPerLane>
struct LaneScores {
  uint32_t bits[kPerLane];

  __device__ LaneScores(const float* scores, int own) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int block = i * 32 + static_cast<int>(threadIdx.x % 32);
      bits[i] = block < own ? __float_as_uint(scores[block]) : 0;
    }
  }
  template <typename Body>
  __device__ void ForEach(int, const Body& body) const {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) body(i, bits[i]);
  }
};
template <>
struct LaneScores<0> {
  const float* scores;

  __device__ LaneScores(const float* s, int) : scores(s) {}
  template <typename Body>
  __device__ void ForEach(int own, const Body& body) const {
    for (int i = 0; i * 32 < own; ++i) {
      const int block = i * 32 + static_cast<int>(threadIdx.x % 32);
      body(i, block < own ? __float_as_uint(scores[block]) : 0u);
    }
  }
};

// The `need`-th largest of the first `own` scores, found bit by bit from the top; `enough` scores
// are at least that large. Scores past `own` read as 0, which is never a threshold that is asked
// for with need <= own unless it is right.
template <int kPerLane>
__device__ uint32_t Threshold(const LaneScores<kPerLane>& lane, int own, int need) {
  uint32_t threshold = 0;
  for (uint32_t bit = 1u << 30; bit != 0; bit >>= 1) {
    const uint32_t candidate = threshold | bit;
    int count = 0;
    lane.ForEach(own, [&](int, uint32_t x) { count += x >= candidate; });
    count = __reduce_add_sync(kFullWarp, count);
    if (count < need) continue;
    threshold = candidate;
    if (count == need) break;
  }
  return threshold;
}

template <int kPerLane>
__global__ void __launch_bounds__(kWarps * 32) CausalChoiceKernel(BlockChoice c) {
  const ChoiceRow r(c);
  const int lane_id = threadIdx.x % 32;
  int pairs = 0;
  if (r.alive) {
    const int need = min(c.count - 1, r.own);
    const LaneScores<kPerLane> lane(r.scores, r.own);
    const uint32_t threshold = need > 0 ? Threshold(lane, r.own, need) : 0xFFFFFFFFu;
    int above = 0;
    lane.ForEach(r.own,
                 [&](int i, uint32_t x) { above += i * 32 + lane_id < r.own && x > threshold; });
    int ties = need - __reduce_add_sync(kFullWarp, above);  // equal ones to take, lowest first
    int used = 0;
    float sum = 0;
    lane.ForEach(r.own, [&](int i, uint32_t x) {
      const int block = i * 32 + lane_id;
      const bool real = block < r.own;
      const unsigned before = (1u << lane_id) - 1;
      const unsigned equal = __ballot_sync(kFullWarp, real && x == threshold);
      const bool tie = real && x == threshold && __popc(equal & before) < ties;
      ties -= min(ties, __popc(equal));
      const bool take = real && need > 0 && (x > threshold || tie);
      const unsigned taken = __ballot_sync(kFullWarp, take);
      if (take) {
        r.blocks[used + __popc(taken & before)] = block;
        sum += __uint_as_float(x);
      }
      used += __popc(taken);
    });
    if (lane_id == 0) r.blocks[used] = r.own;
    for (int i = used + 1 + lane_id; i < c.count; i += 32) r.blocks[i] = -1;
    if (r.counted && lane_id == 0) pairs = used * kTileKeys + r.position % kTileKeys + 1;
    if (r.counted && c.tally.selection_weight != nullptr) {
      sum = WarpSum(sum);
      __syncwarp();
      if (!(sum > 0)) {
        if (lane_id == 0) AddWeight(c.tally.selection_weight + r.own, 1.0);
      } else {
        for (int i = lane_id; i < used; i += 32) {
          const int block = r.blocks[i];
          AddWeight(c.tally.selection_weight + block, double{r.scores[block]} / sum);
        }
      }
    }
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
  const int most = (c.row_begin + c.end - 1) / kTileKeys;  // earlier blocks of the last row
  const dim3 grid = ChoiceGrid(c);
  if (most <= 8 * 32) {
    CausalChoiceKernel<8><<<grid, kWarps * 32, 0, stream>>>(c);
  } else if (most <= 32 * 32) {
    CausalChoiceKernel<32><<<grid, kWarps * 32, 0, stream>>>(c);
  } else if (most <= 64 * 32) {
    CausalChoiceKernel<64><<<grid, kWarps * 32, 0, stream>>>(c);
  } else {
    CausalChoiceKernel<0><<<grid, kWarps * 32, 0, stream>>>(c);
  }
  return cudaGetLastError();
}

cudaError_t LaunchNetworkChoice(const BlockChoice& c, cudaStream_t stream) {
  if (c.end <= c.begin) return cudaSuccess;
  if (c.count > 32) return cudaErrorInvalidValue;
  NetworkChoiceKernel<<<ChoiceGrid(c), kWarps * 32, 0, stream>>>(c);
  return cudaGetLastError();
}

}  // namespace videonsa::cuda
