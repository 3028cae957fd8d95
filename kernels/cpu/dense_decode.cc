#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/cpu/dense_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dense_decode.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

#ifndef VIDEONSA_KERNELS_CPU_DENSE_DECODE_PLAN_
#define VIDEONSA_KERNELS_CPU_DENSE_DECODE_PLAN_
namespace videonsa {

// Pages one task walks over; fixed, so that a row is summed alike whatever its batch mates are.
inline constexpr int kSplitPages = 32;

struct DecodePlan {
  int group = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int32_t* first_split = nullptr;  // [num_seqs + 1]
  float* partials = nullptr;       // [splits, num_kv_heads, group, StateFloats]
  char* threads = nullptr;
  size_t thread_bytes = 0;

  static DecodePlan Of(const DecodeParams& p, int64_t num_splits, int num_threads, void* scratch,
                       size_t* bytes) {
    DecodePlan plan;
    plan.group = p.num_q_heads / p.kv.num_kv_heads;
    plan.num_kv_heads = p.kv.num_kv_heads;
    plan.head_dim = p.kv.head_dim;
    ScratchCursor cursor(scratch);
    plan.first_split = cursor.Take<int32_t>(p.num_seqs + 1);
    plan.partials = cursor.Take<float>(num_splits * p.num_q_heads * StateFloats(p.kv.head_dim));
    ScratchCursor one(nullptr);
    one.Take<TileRow>(plan.group);
    one.Take<uint32_t>(plan.group * p.kv.head_dim / 2);
    plan.thread_bytes = one.used();
    plan.threads = cursor.Take<char>(plan.thread_bytes * num_threads);
    *bytes = cursor.used();
    return plan;
  }

  static int Splits(int kv_len) {
    const int pages = (kv_len + kKvPageTokens - 1) / kKvPageTokens;
    return std::max(1, (pages + kSplitPages - 1) / kSplitPages);
  }

  float* Partial(int split, int kv_head) const {
    return partials + (int64_t{split} * num_kv_heads + kv_head) * group *
                          static_cast<int64_t>(StateFloats(head_dim));
  }
};

}  // namespace videonsa
#endif  // VIDEONSA_KERNELS_CPU_DENSE_DECODE_PLAN_

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

template <TileKind kKind>
struct DecodeSplit {
  const DecodeParams& p;
  const DecodePlan& plan;

  HWY_ATTR void operator()(int64_t task, int thread) const {
    const int kv_head = static_cast<int>(task % plan.num_kv_heads);
    const int split = static_cast<int>(task / plan.num_kv_heads);
    const int seq =
        static_cast<int>(std::upper_bound(plan.first_split, plan.first_split + p.num_seqs, split) -
                         plan.first_split - 1);
    const size_t head_dim = p.kv.head_dim;
    ScratchCursor cursor(plan.threads + thread * plan.thread_bytes);
    TileRow* rows = cursor.Take<TileRow>(plan.group);
    uint32_t* q_pairs = cursor.Take<uint32_t>(plan.group * head_dim / 2);
    for (int i = 0; i < plan.group; ++i) {
      const int64_t head = int64_t{kv_head} * plan.group + i;
      rows[i] = TileRow{p.q.data + seq * p.q.row_stride + head * static_cast<int64_t>(head_dim)};
      rows[i].state = plan.Partial(split, kv_head) + i * StateFloats(head_dim);
      if constexpr (kKind == TileKind::kBf16Dot) {
        RowToBf16(rows[i].q, head_dim, q_pairs + i * (head_dim / 2));
        rows[i].q_pairs = q_pairs + i * (head_dim / 2);
      }
      ResetState(rows[i].state, head_dim);
    }
    const int kv_len = p.kv_lens[seq];
    const int first = (split - plan.first_split[seq]) * kSplitPages;
    const int last = std::min(first + kSplitPages, (kv_len + kKvPageTokens - 1) / kKvPageTokens);
    for (int block = first; block < last; ++block) {
      const int visible = std::min(kv_len - block * kKvPageTokens, kKvPageTokens);
      for (int i = 0; i < plan.group; ++i) rows[i].hi = visible;
      AttendTile<kKind>(rows, plan.group, TileOf(p.kv, p.page_tables[seq], block, kv_head),
                        head_dim, p.scale * kLog2E);
    }
  }
};

// Joins the splits of one (sequence, query head) in order.
struct DecodeMerge {
  const DecodeParams& p;
  const DecodePlan& plan;

  HWY_ATTR void operator()(int64_t task, int) const {
    const int seq = static_cast<int>(task / p.num_q_heads);
    const int head = static_cast<int>(task % p.num_q_heads);
    const size_t head_dim = p.kv.head_dim;
    const auto state = [&](int split) {
      return plan.Partial(split, head / plan.group) +
             (head % plan.group) * static_cast<int64_t>(StateFloats(head_dim));
    };
    const int first = plan.first_split[seq], last = plan.first_split[seq + 1];
    float reference = -std::numeric_limits<float>::infinity();
    for (int split = first; split < last; ++split) {
      reference = std::max(reference, state(split)[StateReference(head_dim)]);
    }
    float* sum = state(first);
    if (std::isfinite(reference)) RaiseReference(sum, head_dim, reference);
    const FloatTag d;
    for (int split = first + 1; split < last; ++split) {  // then every split has keys
      const float* part = state(split);
      const FloatVec f = hn::Set(d, std::exp2(part[StateReference(head_dim)] - reference));
      for (size_t i = 0; i < head_dim + kLanes; i += kLanes) {
        hn::StoreU(hn::MulAdd(f, hn::LoadU(d, part + i), hn::LoadU(d, sum + i)), d, sum + i);
      }
    }
    WriteRow(sum, head_dim,
             p.out.data + seq * p.out.row_stride + head * static_cast<int64_t>(head_dim));
  }
};

void DenseDecodeT(const DecodeParams& p, const DecodePlan& plan, ThreadPool& pool) {
  const int64_t splits = plan.first_split[p.num_seqs];
  WithTileKind(p.kv, p.math, [&](auto kind) {
    const DecodeSplit<decltype(kind)::value> task{p, plan};
    pool.ParallelFor(splits * plan.num_kv_heads, std::ref(task));
  });
  const DecodeMerge merge{p, plan};
  pool.ParallelFor(int64_t{p.num_seqs} * p.num_q_heads, std::ref(merge));
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(DenseDecodeT);

size_t DenseDecodeScratchBytes(int num_threads, int num_seqs, int max_kv_len, int num_q_heads,
                               int num_kv_heads, int head_dim) {
  DecodeParams p;
  p.kv.num_kv_heads = num_kv_heads;
  p.kv.head_dim = head_dim;
  p.num_q_heads = num_q_heads;
  p.num_seqs = num_seqs;
  size_t bytes = 0;
  DecodePlan::Of(p, int64_t{num_seqs} * DecodePlan::Splits(max_kv_len), num_threads, nullptr,
                 &bytes);
  return bytes;
}

void DenseDecode(const DecodeParams& params, Scratch scratch, ThreadPool& pool) {
  if (params.num_seqs <= 0) return;
  int64_t splits = 0;
  for (int seq = 0; seq < params.num_seqs; ++seq) splits += DecodePlan::Splits(params.kv_lens[seq]);
  size_t bytes = 0;
  const DecodePlan plan = DecodePlan::Of(params, splits, pool.num_threads(), scratch.data, &bytes);
  plan.first_split[0] = 0;
  for (int seq = 0; seq < params.num_seqs; ++seq) {
    plan.first_split[seq + 1] = plan.first_split[seq] + DecodePlan::Splits(params.kv_lens[seq]);
  }
  HWY_DYNAMIC_DISPATCH(DenseDecodeT)(params, plan, pool);
}

}  // namespace videonsa
#endif  // HWY_ONCE
