#include "kernels/cpu/sample_token.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace videonsa {
namespace {

constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

int32_t Greedy(const float* logits, int vocab) {
  int32_t best = 0;
  float top = kMinusInf;
  for (int32_t id = 0; id < vocab; ++id) {
    if (logits[id] > top) {
      top = logits[id];
      best = id;
    }
  }
  return best;
}

// Higher logit first, then lower id.
struct Better {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  }
};

// Sorted candidates after top-k; all of them if k is off.
int SortCandidates(const SampleParams& p) {
  int count = 0;
  for (int32_t id = 0; id < p.vocab; ++id) {
    if (p.logits[id] > kMinusInf) p.scratch[count++] = id;
  }
  const int keep = p.top_k > 0 ? std::min(p.top_k, count) : count;
  std::partial_sort(p.scratch, p.scratch + keep, p.scratch + count, Better{p.logits});
  return keep;
}

int32_t Draw(const SampleParams& p) {
  int count = SortCandidates(p);
  if (count == 0) return 0;
  const double top = p.logits[p.scratch[0]];
  const auto weight = [&](int place) {
    return std::exp((p.logits[p.scratch[place]] - top) / p.temperature);
  };
  double total = 0;
  for (int place = 0; place < count; ++place) total += weight(place);
  if (p.top_p < 1) {
    // The shortest run of best candidates whose share reaches top_p; at least one.
    double sum = 0;
    int kept = 0;
    while (kept < count && (kept == 0 || sum < p.top_p * total)) sum += weight(kept++);
    count = kept;
    total = sum;
  }
  if (p.min_p > 0) {
    int kept = 0;
    double sum = 0;
    while (kept < count && weight(kept) >= p.min_p) sum += weight(kept++);
    count = kept;
    total = sum;
  }
  double left = p.uniform * total;
  for (int place = 0; place < count; ++place) {
    left -= weight(place);
    if (left < 0) return p.scratch[place];
  }
  return p.scratch[count - 1];
}

uint64_t Mix(uint64_t x) {
  // The finaliser of splitmix64 (Steele, Lea, Flood 2014).
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

int32_t SampleToken(const SampleParams& p) {
  if (p.repetition_penalty != 1) {
    for (int64_t i = 0; i < p.num_seen; ++i) {
      float& logit = p.logits[p.seen[i]];
      logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
    }
  }
  for (int i = 0; i < p.num_suppressed; ++i) p.logits[p.suppressed[i]] = kMinusInf;
  return p.temperature > 0 ? Draw(p) : Greedy(p.logits, p.vocab);
}

double LogSumExp(const float* logits, int vocab) {
  const float top = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int id = 0; id < vocab; ++id) sum += std::exp(static_cast<double>(logits[id]) - top);
  return top + std::log(sum);
}

void TopTokens(const float* logits, int vocab, int count, int32_t* scratch, int32_t* ids) {
  std::iota(scratch, scratch + vocab, 0);
  std::partial_sort(scratch, scratch + count, scratch + vocab, Better{logits});
  std::copy_n(scratch, count, ids);
}

double UniformOf(uint64_t seed, uint64_t step) {
  return static_cast<double>(Mix(Mix(seed) + step) >> 11) * 0x1.0p-53;
}

}  // namespace videonsa
