#include "kernels/common/mma.cuh"
#include "kernels/sampling/cuda_sampling.h"

namespace videonsa {
namespace cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kRound = 1024;  // candidates sorted at a time, best first

/// A candidate as a number that grows with its rank: higher logit first, then lower id. 0 is none.
using Key = unsigned long long;

__device__ Key KeyOf(float logit, int id) {
  if (!(logit > kMinusInf)) return 0;                   // NaN, -inf
  const uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 as 0
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return Key{ordered} << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}
__device__ int IdOf(Key key) {
  return static_cast<int>(0xFFFFFFFFu - static_cast<uint32_t>(key & 0xFFFFFFFFu));
}

struct SampleShared {
  Key sorted[kRound];
  double partial[kWarps];
  Key keys[kWarps];
  int counts[256];
  int used;
  Key prefix;
  int need;
  int done;
};

// One CTA a row.
class Sampler {
 public:
  __device__ Sampler(const CudaSampleParams& p, SampleShared& shared)
      : p_(p),
        s_(shared),
        settings_(p.settings[blockIdx.x]),
        logits_(p.logits + blockIdx.x * p.logits_stride) {}

  __device__ void Run() {
    const double normaliser = p_.log_probs != nullptr ? LogSumExp() : 0.0;
    const int id = Choose();
    if (threadIdx.x != 0) return;
    p_.ids[blockIdx.x] = id;
    if (p_.log_probs == nullptr) return;
    p_.log_probs[blockIdx.x] = static_cast<float>(Original(id) - normaliser);
  }

 private:
  template <typename T, typename Join>
  __device__ T Reduce(T mine, T* shared, const Join& join) {
    for (int d = 16; d > 0; d /= 2) mine = join(mine, __shfl_xor_sync(kFullWarp, mine, d));
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
    __syncthreads();
    T all = shared[0];
    for (int i = 1; i < kWarps; ++i) all = join(all, shared[i]);
    __syncthreads();
    return all;
  }
  __device__ Key Best() {
    Key best = 0;
    for (int id = threadIdx.x; id < p_.vocab; id += kThreads) {
      best = max(best, KeyOf(logits_[id], id));
    }
    return Reduce(best, s_.keys, [](Key a, Key b) { return a > b ? a : b; });
  }
  __device__ double Sum(double mine) {
    return Reduce(mine, s_.partial, [](double a, double b) { return a + b; });
  }

  __device__ double LogSumExp() {
    const Key best = Best();
    if (best == 0) return 0;
    const double top = logits_[IdOf(best)];
    double sum = 0;
    for (int id = threadIdx.x; id < p_.vocab; id += kThreads) sum += exp(logits_[id] - top);
    return top + log(Sum(sum));
  }

  __device__ float Penalised(float logit) const {
    const float penalty = settings_.repetition_penalty;
    return logit > 0 ? logit / penalty : logit * penalty;
  }
  __device__ int Choose() {
    __syncthreads();
    if (settings_.repetition_penalty != 1) {
      for (int i = threadIdx.x; i < settings_.num_seen; i += kThreads) {
        float& logit = logits_[settings_.seen[i]];
        logit = Penalised(logit);
      }
      __syncthreads();
    }
    for (int i = threadIdx.x; i < settings_.num_suppressed; i += kThreads) {
      logits_[settings_.suppressed[i]] = kMinusInf;
    }
    __syncthreads();
    const Key best = Best();
    if (best == 0) return 0;
    return settings_.temperature > 0 ? Draw(best) : IdOf(best);
  }
  // The logit before the penalty, within rounding of the division.
  __device__ double Original(int id) const {
    const float logit = logits_[id];
    if (settings_.repetition_penalty == 1) return logit;
    for (int i = 0; i < settings_.num_seen; ++i) {
      if (settings_.seen[i] != id) continue;
      const double penalty = settings_.repetition_penalty;
      return logit > 0 ? logit * penalty : logit / penalty;
    }
    return logit;
  }

  __device__ double Weight(Key key, double top) const {
    return exp((logits_[IdOf(key)] - top) / settings_.temperature);
  }

  // The candidates below `limit`, kRound of them at most, sorted best first. Returns their number.
  __device__ int NextCandidates(Key limit, int wanted) {
    SelectThreshold(limit, wanted);
    const Key threshold = s_.prefix;
    if (threadIdx.x == 0) s_.used = 0;
    for (int i = threadIdx.x; i < kRound; i += kThreads) s_.sorted[i] = 0;
    __syncthreads();
    for (int id = threadIdx.x; id < p_.vocab; id += kThreads) {
      const Key key = KeyOf(logits_[id], id);
      if (key == 0 || key >= limit || key < threshold) continue;
      const int at = atomicAdd(&s_.used, 1);
      if (at < kRound) s_.sorted[at] = key;
    }
    __syncthreads();
    Sort();
    return s_.used;
  }

  // s_.prefix becomes the wanted-th best key below `limit` (0 if there are fewer), byte by byte.
  __device__ void SelectThreshold(Key limit, int wanted) {
    if (threadIdx.x == 0) s_.prefix = 0, s_.need = wanted, s_.done = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
      for (int i = threadIdx.x; i < 256; i += kThreads) s_.counts[i] = 0;
      __syncthreads();
      if (s_.done) return;
      for (int id = threadIdx.x; id < p_.vocab; id += kThreads) {
        const Key key = KeyOf(logits_[id], id);
        if (key == 0 || key >= limit) continue;
        if (shift < 56 && key >> (shift + 8) != s_.prefix >> (shift + 8)) continue;
        atomicAdd(&s_.counts[key >> shift & 255], 1);
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        int digit = 255;
        while (digit > 0 && s_.need > s_.counts[digit]) s_.need -= s_.counts[digit--];
        if (s_.need > s_.counts[digit]) {
          s_.prefix = 0, s_.done = 1;  // fewer than wanted: take all
        } else {
          s_.prefix |= static_cast<Key>(digit) << shift;
        }
      }
      __syncthreads();
    }
  }

  // Bitonic, descending.
  __device__ void Sort() {
    for (int size = 2; size <= kRound; size *= 2) {
      for (int d = size / 2; d > 0; d /= 2) {
        for (int i = threadIdx.x; i < kRound; i += kThreads) {
          const int j = i ^ d;
          if (j <= i) continue;
          const bool descending = (i & size) == 0;
          const Key a = s_.sorted[i], b = s_.sorted[j];
          if ((a < b) == descending) s_.sorted[i] = b, s_.sorted[j] = a;
        }
        __syncthreads();
      }
    }
  }

  // Walks over the candidates best first; visit(place, key, weight) of thread 0 says whether to go
  // on. `most` candidates at most.
  template <typename Visit>
  __device__ void Walk(double top, int most, const Visit& visit) {
    Key limit = ~Key{0};
    for (int place = 0; place < most;) {
      const int count = min(NextCandidates(limit, min(kRound, most - place)), most - place);
      if (threadIdx.x == 0) {
        int i = 0;
        bool on = true;
        while (on && i < count) on = visit(s_.sorted[i], Weight(s_.sorted[i], top)), ++i;
        s_.done = !on || count < kRound;
        s_.prefix = count > 0 ? s_.sorted[count - 1] : 0;
      }
      __syncthreads();
      limit = s_.prefix;
      place += count;
      const bool done = s_.done != 0;
      __syncthreads();
      if (done) return;
    }
  }

  // Sums what the settings keep, then walks again to where the draw falls.
  __device__ int Draw(Key best) {
    const double top = logits_[IdOf(best)];
    const int most = settings_.top_k > 0 ? min(settings_.top_k, p_.vocab) : p_.vocab;
    double total = 0;
    if (settings_.top_k > 0) {
      Walk(top, most, [&](Key, double w) {
        total += w;
        return true;
      });
    } else {
      for (int id = threadIdx.x; id < p_.vocab; id += kThreads) {
        const Key key = KeyOf(logits_[id], id);
        if (key != 0) total += Weight(key, top);
      }
      total = Sum(total);
    }
    int kept = p_.vocab;  // of the walk; only thread 0's numbers count
    if (settings_.top_p < 1) {
      double sum = 0;
      kept = 0;
      Walk(top, most, [&](Key, double w) {
        if (kept > 0 && !(sum < settings_.top_p * total)) return false;
        sum += w;
        ++kept;
        return true;
      });
      total = sum;
    }
    if (settings_.min_p > 0) {
      double sum = 0;
      int heavy = 0;
      Walk(top, most, [&](Key, double w) {
        if (heavy >= kept || w < settings_.min_p) return false;
        sum += w;
        ++heavy;
        return true;
      });
      kept = heavy;
      total = sum;
    }
    double left = settings_.uniform * total;
    int place = 0, id = IdOf(best);
    Walk(top, most, [&](Key key, double w) {
      if (place >= kept) return false;
      ++place;
      id = IdOf(key);
      left -= w;
      return !(left < 0);
    });
    return id;
  }

  const CudaSampleParams& p_;
  SampleShared& s_;
  const CudaSampleSettings settings_;
  float* const logits_;
};

__global__ void __launch_bounds__(kThreads)
    SampleKernel(const __grid_constant__ CudaSampleParams p) {
  __shared__ SampleShared shared;
  Sampler(p, shared).Run();
}

}  // namespace
}  // namespace cuda

CudaStatus LaunchSample(const CudaSampleParams& p, CudaStream stream) {
  if (p.num_rows <= 0) return cudaSuccess;
  cuda::SampleKernel<<<static_cast<unsigned>(p.num_rows), cuda::kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace videonsa
