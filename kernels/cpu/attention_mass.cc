#include "kernels/cpu/attention_mass.h"

#include <algorithm>
#include <functional>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_mass.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

#ifndef VIDEONSA_KERNELS_CPU_ATTENTION_MASS_PLAN_
#define VIDEONSA_KERNELS_CPU_ATTENTION_MASS_PLAN_
namespace videonsa {

struct MassThread {
  TileRow* rows = nullptr;
  float* weights = nullptr;  // [group, num_blocks * 64]
  double* mass = nullptr;    // [num_blocks]
};

struct MassPlan {
  int group = 0;
  int num_blocks = 0;
  size_t thread_bytes = 0;

  static MassPlan Of(int num_q_heads, int num_kv_heads, int len) {
    MassPlan plan;
    plan.group = num_q_heads / num_kv_heads;
    plan.num_blocks = (len + kKvPageTokens - 1) / kKvPageTokens;
    ScratchCursor cursor(nullptr);
    plan.Take(cursor);
    plan.thread_bytes = cursor.used();
    return plan;
  }
  MassThread Thread(Scratch scratch, int thread) const {
    ScratchCursor cursor(static_cast<char*>(scratch.data) + thread * thread_bytes);
    return Take(cursor);
  }
  MassThread Take(ScratchCursor& cursor) const {
    MassThread t;
    t.rows = cursor.Take<TileRow>(group);
    t.weights = cursor.Take<float>(static_cast<size_t>(group) * num_blocks * kKvPageTokens);
    t.mass = cursor.Take<double>(num_blocks);
    return t;
  }
};

}  // namespace videonsa
#endif  // VIDEONSA_KERNELS_CPU_ATTENTION_MASS_PLAN_

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

// Turns the logits of one head into weights and adds their sums by block.
HWY_ATTR void AddRowMass(float* HWY_RESTRICT x, int keys, float log2_scale,
                         double* HWY_RESTRICT mass) {
  const FloatTag d;
  const FloatVec c = hn::Set(d, log2_scale);
  const FloatVec minus_inf = hn::Set(d, -std::numeric_limits<float>::infinity());
  const int blocks = (keys + kKvPageTokens - 1) / kKvPageTokens;
  FloatVec top = minus_inf;
  for (int j = 0; j < blocks * kKvPageTokens; j += static_cast<int>(kLanes)) {
    const auto real = hn::FirstN(d, static_cast<size_t>(std::max(0, keys - j)));
    const FloatVec logit = hn::IfThenElse(real, hn::Mul(hn::LoadU(d, x + j), c), minus_inf);
    hn::StoreU(logit, d, x + j);
    top = hn::Max(top, logit);
  }
  top = hn::MaxOfLanes(d, top);
  double total = 0;
  for (int block = 0; block < blocks; ++block) {
    FloatVec sum = hn::Zero(d);
    for (size_t j = 0; j < kKvPageTokens; j += kLanes) {
      const FloatVec logit = hn::LoadU(d, x + block * kKvPageTokens + j);
      sum = hn::Add(sum, hn::IfThenElseZero(hn::Gt(logit, minus_inf), Exp2(hn::Sub(logit, top))));
    }
    x[block] = hn::GetLane(hn::SumOfLanes(d, sum));  // this block's logits are done with
    total += x[block];
  }
  for (int block = 0; block < blocks; ++block) mass[block] += x[block] / total;
}

template <TileKind kKind>
struct MassTask {
  const AttentionMassParams& p;
  const MassPlan& plan;
  Scratch scratch;

  HWY_ATTR void operator()(int64_t task, int thread) const {
    const int kv_head = static_cast<int>(task % p.kv.num_kv_heads);
    const int64_t row = task / p.kv.num_kv_heads;
    if (p.skip_rows != nullptr && p.skip_rows[row]) return;
    const MassThread t = plan.Thread(scratch, thread);
    const int keys = p.row_begin + static_cast<int>(row) + 1;
    const size_t head_dim = p.kv.head_dim;
    const size_t stride = static_cast<size_t>(plan.num_blocks) * kKvPageTokens;
    for (int i = 0; i < plan.group; ++i) {
      const int64_t head = int64_t{kv_head} * plan.group + i;
      t.rows[i] = TileRow{p.q.data + row * p.q.row_stride + head * static_cast<int64_t>(head_dim)};
    }
    for (int block = 0; block * kKvPageTokens < keys; ++block) {
      const KvTile tile = TileOf(p.kv, p.kv.page_ids, block, kv_head);
      ForGroups(plan.group, [&](auto size, int first) HWY_ATTR {
        Scores<kKind, decltype(size)::value>(
            t.rows + first, tile.k, head_dim,
            t.weights + first * stride + static_cast<size_t>(block) * kKvPageTokens, stride);
      });
    }
    for (int i = 0; i < plan.group; ++i) {
      AddRowMass(t.weights + i * stride, keys, p.scale * kLog2E, t.mass);
    }
  }
};

void AddAttentionMassT(const AttentionMassParams& p, const MassPlan& plan, Scratch scratch,
                       ThreadPool& pool) {
  WithTileKind(p.kv, MathType::kF32, [&](auto kind) {
    const MassTask<decltype(kind)::value> task{p, plan, scratch};
    pool.ParallelFor(int64_t{p.row_end - p.row_begin} * p.kv.num_kv_heads, std::ref(task));
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(AddAttentionMassT);

size_t AttentionMassScratchBytes(int num_threads, int num_q_heads, int num_kv_heads, int max_len) {
  return MassPlan::Of(num_q_heads, num_kv_heads, max_len).thread_bytes * num_threads;
}

void AddAttentionMass(const AttentionMassParams& params, Scratch scratch, ThreadPool& pool) {
  if (params.row_end <= params.row_begin) return;
  const MassPlan plan = MassPlan::Of(params.num_q_heads, params.kv.num_kv_heads, params.row_end);
  for (int i = 0; i < pool.num_threads(); ++i) {
    const MassThread t = plan.Thread(scratch, i);
    std::fill(t.mass, t.mass + plan.num_blocks, 0.0);
  }
  HWY_DYNAMIC_DISPATCH(AddAttentionMassT)(params, plan, scratch, pool);
  for (int i = 0; i < pool.num_threads(); ++i) {
    const MassThread t = plan.Thread(scratch, i);
    for (int b = 0; b < plan.num_blocks; ++b) params.mass[b] += t.mass[b];
  }
}

}  // namespace videonsa
#endif  // HWY_ONCE
