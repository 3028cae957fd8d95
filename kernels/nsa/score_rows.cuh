#pragma once

#include "kernels/nsa/nsa_stages.cuh"

/// What the bodies that score blocks share.
namespace videonsa::cuda {

inline constexpr float kLargestScore = 3.402823466e38f;

/// Heads of a KV head that carry queries, and addends of a score (zero slots add constants).
template <typename T>
__host__ __device__ int QueryHeads(const BlockScores<T>& a, int kv_head) {
  if (a.heads == HeadMap::kGroups) return a.num_q_heads / a.num_kv_heads;
  const int left = kDataSlots - kv_head * kSlotsPerKvHead;
  return left < kSlotsPerKvHead ? left : kSlotsPerKvHead;
}
template <typename T>
__device__ int Addends(const BlockScores<T>& a) {
  return a.heads == HeadMap::kGroups ? a.num_q_heads / a.num_kv_heads : kSlotsPerKvHead;
}
template <typename T>
__device__ int HeadOf(const BlockScores<T>& a, int kv_head, int i) {
  if (a.heads == HeadMap::kGroups) return kv_head * QueryHeads(a, kv_head) + i;
  return (kv_head * kSlotsPerKvHead + i) % kSlotHeads;
}
template <typename T>
__device__ float LogSum(const BlockScores<T>& a, int64_t row, int kv_head, int i) {
  if (a.heads == HeadMap::kGroups) {
    return a.lse2[row * a.num_q_heads + kv_head * QueryHeads(a, kv_head) + i];
  }
  return a.lse2[row * kReleasedSlotsOnDevice + kv_head * kSlotsPerKvHead + i];
}
/// Whether scores are wanted of the row, counted from the first row of the call.
template <typename T>
__device__ bool Wanted(const BlockScores<T>& a, int row, int kv_head) {
  if (row >= a.end || (a.only != nullptr && !a.only[row])) return false;
  if (a.steep == nullptr) return true;
  return a.steep[int64_t{row - a.begin} * a.num_kv_heads + kv_head] != 0;
}

/// What is summed over the heads.
enum class ScoreKind : int {
  kWeights,      // causal_nsa: at most 1 each; below 2^-126 they are 0
  kSlotWeights,  // released_nsa: they span all of fp32 and are 0 only where it has nothing left
  kLogs,         // causal_nsa: logarithms of weights
};

/// Adds to a sum over the heads; of logarithms it stays relative to the highest addend, `top`.
template <ScoreKind kKind>
__device__ void AddWeight(float log2_weight, float& top, float& sum) {
  if constexpr (kKind == ScoreKind::kLogs) {
    const float power = FastExp2(-fabsf(log2_weight - top));
    sum = log2_weight > top ? fmaf(sum, power, 1.0f) : sum + power;
    top = fmaxf(top, log2_weight);
  } else {
    sum += kKind == ScoreKind::kSlotWeights ? exp2f(log2_weight) : FastExp2(log2_weight);
  }
}
/// Broken numbers too become finite ones.
template <ScoreKind kKind>
__device__ float ScoreOf(float top, float sum) {
  if (kKind != ScoreKind::kLogs) return fminf(sum, kLargestScore);
  return fminf(fmaxf(top + log2f(sum), -kLargestScore), kLargestScore);
}
/// Below every logarithm of a weight, and far from infinity.
inline constexpr float kNoLog = -1e30f;

}  // namespace videonsa::cuda
