#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "kernels/cpu/sparse_plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sparse_patterns.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

// Softmax over x[0 .. keys); the rest up to a multiple of 64 becomes 0.
HWY_ATTR void SoftmaxPrefix(float* HWY_RESTRICT x, int keys, float log2_scale) {
  const FloatTag d;
  const FloatVec c = hn::Set(d, log2_scale);
  const FloatVec minus_inf = hn::Set(d, -std::numeric_limits<float>::infinity());
  const int end = (keys + kKvPageTokens - 1) / kKvPageTokens * kKvPageTokens;
  const auto seen = [&](int j) HWY_ATTR {
    return hn::FirstN(d, static_cast<size_t>(std::max(0, keys - j)));
  };
  FloatVec top = minus_inf;
  for (int j = 0; j < end; j += static_cast<int>(kLanes)) {
    top = hn::Max(top, hn::IfThenElse(seen(j), hn::Mul(hn::LoadU(d, x + j), c), minus_inf));
  }
  top = hn::MaxOfLanes(d, top);
  FloatVec sum = hn::Zero(d);
  for (int j = 0; j < end; j += static_cast<int>(kLanes)) {
    const FloatVec p = hn::IfThenElseZero(seen(j), Exp2(hn::MulSub(hn::LoadU(d, x + j), c, top)));
    sum = hn::Add(sum, p);
    hn::StoreU(p, d, x + j);
  }
  const FloatVec inverse = hn::Set(d, 1.0f / hn::GetLane(hn::SumOfLanes(d, sum)));
  for (int j = 0; j < end; j += static_cast<int>(kLanes)) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + j), inverse), d, x + j);
  }
}

// Attention weights of rows [first, first + count) of one head; `weights` has rows of `stride`.
HWY_ATTR void RowWeightsT(const SparsePrefillParams& p, int head, int first, int count,
                          TileRow* rows, int64_t stride, float* weights) {
  const int kv_head = head * p.kv.num_kv_heads / p.num_q_heads;
  for (int r = 0; r < count; ++r) {
    rows[r] = TileRow{p.q.data + (first + r) * p.q.row_stride + int64_t{head} * p.kv.head_dim};
  }
  WithTileKind(p.kv, MathType::kF32, [&](auto kind) {
    for (int block = 0; block * kKvPageTokens < first + count; ++block) {
      const KvTile tile = TileOf(p.kv, p.kv.page_ids, block, kv_head);
      ForGroups(count, [&](auto size, int row) HWY_ATTR {
        Scores<decltype(kind)::value, decltype(size)::value>(
            rows + row, tile.k, p.kv.head_dim, weights + row * stride + block * kKvPageTokens,
            stride);
      });
    }
  });
  for (int r = 0; r < count; ++r) {
    SoftmaxPrefix(weights + r * stride, first + r + 1, p.scale * kLog2E);
  }
}

// Attention weights of folded rows [first, first + count) over folded keys.
HWY_ATTR void FoldedWeightsT(const SparsePrefillParams& p, const SparseScratch& s, int head,
                             int first, int count, const PatternThread& t, int64_t stride) {
  const int kv_head = head * p.kv.num_kv_heads / p.num_q_heads;
  const int64_t dim = int64_t{kFoldTokens} * p.kv.head_dim;
  for (int r = 0; r < count; ++r) {
    float* to = t.folded + r * dim;
    for (int i = 0; i < kFoldTokens; ++i, to += p.kv.head_dim) {  // last token first
      const int64_t row = int64_t{first + r} * kFoldTokens + kFoldTokens - 1 - i;
      if (row < p.num_rows) {
        std::copy_n(p.q.data + row * p.q.row_stride + int64_t{head} * p.kv.head_dim, p.kv.head_dim,
                    to);
      } else {
        std::fill_n(to, p.kv.head_dim, 0.0f);
      }
    }
    t.rows[r] = TileRow{t.folded + r * dim};
  }
  for (int tile = 0; tile * kKvPageTokens < first + count; ++tile) {
    const float* k = s.folded_keys + (int64_t{kv_head} * s.fold_tiles + tile) * dim * kKvPageTokens;
    ForGroups(count, [&](auto size, int row) HWY_ATTR {
      Scores<TileKind::kF32, decltype(size)::value>(
          t.rows + row, k, dim, t.weights + row * stride + tile * kKvPageTokens, stride);
    });
  }
  for (int r = 0; r < count; ++r) {
    SoftmaxPrefix(t.weights + r * stride, first + r + 1, p.scale * kLog2E / kFoldTokens);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(RowWeightsT);
HWY_EXPORT(FoldedWeightsT);

namespace {

int64_t RoundUp64(int64_t n) { return (n + kKvPageTokens - 1) / kKvPageTokens * kKvPageTokens; }

// Moves the indices of the `count` largest of x[0 .. n) to the front of `order`, ties to the lower
// index; sorted if asked for.
template <typename T>
void Largest(const T* x, int n, int count, bool sorted, int32_t* order) {
  std::iota(order, order + n, 0);
  const auto before = [x](int32_t a, int32_t b) { return x[a] != x[b] ? x[a] > x[b] : a < b; };
  if (sorted) {
    std::partial_sort(order, order + count, order + n, before);
  } else if (count < n) {
    std::nth_element(order, order + count, order + n, before);
  }
}

// Column and diagonal sums of the weights of rows [first, first + count), each times `unit`.
void SumLines(const PatternThread& t, int first, int count, int64_t stride, int len, double unit) {
  std::fill(t.vertical, t.vertical + len, 0.0);
  std::fill(t.slash, t.slash + len, 0.0);
  for (int r = 0; r < count; ++r) {
    const float* w = t.weights + r * stride;
    for (int j = 0; j <= first + r; ++j) t.vertical[j] += w[j] * unit;
    for (int j = 0; j <= first + r; ++j) t.slash[first + r - j] += w[j] * unit;
  }
}

constexpr double kForced = 1e9;

void FindMInference(const SparsePrefillParams& p, const SparseScratch& s, int head,
                    const PatternThread& t) {
  const int len = p.num_rows, rows = std::min(kMInferenceRows, len);
  const int64_t stride = RoundUp64(len);
  HWY_DYNAMIC_DISPATCH(RowWeightsT)(p, head, len - rows, rows, t.rows, stride, t.weights);
  SumLines(t, len - rows, rows, stride, len, 1.0);
  std::fill_n(t.vertical, std::min(len, kMInferenceForcedColumns), kForced);
  std::fill_n(t.slash, std::min(len, kMInferenceForcedDiagonals), kForced);
  float* covered = s.plan.Covered(head);
  std::fill_n(covered, len + kKvPageTokens, 0.0f);
  const int offsets = std::min(len, std::max(p.settings.slash, kMInferenceForcedDiagonals));
  Largest(t.slash, len, offsets, false, t.order);
  for (int i = 0; i < offsets; ++i) {  // keys at distances (offset - 64, offset] of a query block
    std::fill_n(covered + len - 1 - t.order[i], kKvPageTokens, 1.0f);
  }
  const int columns = std::min(len, std::max(p.settings.vertical, kMInferenceForcedColumns));
  Largest(t.vertical, len, columns, false, t.order);
  std::sort(t.order, t.order + columns);
  std::copy_n(t.order, columns, s.plan.Columns(head));
  s.plan.column_counts[head] = columns;
}

// (smallest k whose k largest sum to gamma, plus 1) / 128 + 1 blocks.
int FlexBudget(const double* weights, int len, const SparseSettings& settings, int num_blocks,
               int32_t* order) {
  Largest(weights, len, len, true, order);
  double sum = 0;
  int k = 0;
  while (k < len && sum < settings.flex_gamma) sum += weights[order[k++]];
  return std::clamp((k + 1) / kSparseBlock + 1, std::min(settings.flex_min_blocks, num_blocks),
                    num_blocks);
}

void PoolBlocks(const SparsePrefillParams& p, int head, int num_blocks, double* pooled_q,
                double* pooled_k) {
  const int kv_head = head * p.kv.num_kv_heads / p.num_q_heads, dim = p.kv.head_dim;
  std::fill_n(pooled_q, int64_t{num_blocks} * dim, 0.0);
  std::fill_n(pooled_k, int64_t{num_blocks} * dim, 0.0);
  for (int i = 0; i < p.num_rows; ++i) {
    const int block = i / kSparseBlock;
    const double unit =
        1.0 / (std::min(p.num_rows, (block + 1) * kSparseBlock) - block * kSparseBlock);
    const KvTile tile = TileOf(p.kv, p.kv.page_ids, i / kKvPageTokens, kv_head);
    const float* q = p.q.data + i * p.q.row_stride + int64_t{head} * dim;
    for (int d = 0; d < dim; ++d) {
      pooled_q[int64_t{block} * dim + d] += q[d] * unit;
      pooled_k[int64_t{block} * dim + d] += ReadTileK(p.kv, tile, i % kKvPageTokens, d) * unit;
    }
  }
}

double Dot(const double* a, const double* b, int dim) {
  return std::inner_product(a, a + dim, b, 0.0);
}

void Softmax(float* x, int n) {
  const float top = *std::max_element(x, x + n);
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - top);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(x[i] / sum);
}

// Distance of the attention of the last rows, by block of keys, from its estimate by means.
double FlexDistance(const SparsePrefillParams& p, int head, const double* pooled_k,
                    const double* block_weights, int num_blocks, float* estimate) {
  double mean[256] = {};
  const int dim = p.kv.head_dim;
  for (int i = p.num_rows - kSparseBlock; i < p.num_rows; ++i) {
    const float* q = p.q.data + i * p.q.row_stride + int64_t{head} * dim;
    for (int d = 0; d < dim; ++d) mean[d] += q[d] / static_cast<double>(kSparseBlock);
  }
  for (int b = 0; b < num_blocks; ++b) {
    estimate[b] = static_cast<float>(Dot(mean, pooled_k + int64_t{b} * dim, dim) * p.scale);
  }
  Softmax(estimate, num_blocks);
  double sum = 0;
  for (int b = 0; b < num_blocks; ++b) {
    const double a = estimate[b], w = block_weights[b], m = 0.5 * (a + w);
    if (a > 0) sum += 0.5 * a * std::log(a / m);
    if (w > 0) sum += 0.5 * w * std::log(w / m);
  }
  return std::sqrt(sum);
}

// Adds the blocks that hold gamma of the mean-against-mean attention of the whole head.
void AddQueryAware(const SparsePrefillParams& p, const PatternThread& t, const double* pooled_q,
                   const double* pooled_k, int n, uint8_t* blocks) {
  const int dim = p.kv.head_dim;
  std::fill_n(t.flat, int64_t{n} * n, -1.0f);
  for (int qb = 0; qb < n; ++qb) {
    float* row = t.flat + int64_t{qb} * n;
    for (int kb = 0; kb <= qb; ++kb) {
      row[kb] = static_cast<float>(
          Dot(pooled_q + int64_t{qb} * dim, pooled_k + int64_t{kb} * dim, dim) * p.scale);
    }
    Softmax(row, qb + 1);
  }
  Largest(t.flat, n * n, n * n, true, t.order);
  double sum = 0;
  for (int i = 0; i < n * n && t.flat[t.order[i]] >= 0 && sum <= p.settings.flex_gamma * n; ++i) {
    blocks[t.order[i]] = 1;
    sum += t.flat[t.order[i]];
  }
}

void FindFlexPrefill(const SparsePrefillParams& p, const SparseScratch& s, int head,
                     const PatternThread& t) {
  const int len = p.num_rows, n = s.plan.num_blocks;
  uint8_t* blocks = s.plan.Blocks(head);
  if (len <= 2 * kSparseBlock) {
    std::fill_n(blocks, int64_t{n} * n, uint8_t{1});
    return;
  }
  std::fill_n(blocks, int64_t{n} * n, uint8_t{0});
  const int64_t stride = RoundUp64(len);
  HWY_DYNAMIC_DISPATCH(RowWeightsT)
  (p, head, len - kSparseBlock, kSparseBlock, t.rows, stride, t.weights);
  SumLines(t, len - kSparseBlock, kSparseBlock, stride, len, 1.0 / kSparseBlock);
  double* pooled_q = t.pooled;
  double* pooled_k = t.pooled + int64_t{n} * p.kv.head_dim;
  PoolBlocks(p, head, n, pooled_q, pooled_k);
  int n_v = FlexBudget(t.vertical, len, p.settings, n, t.order);
  int n_s = FlexBudget(t.slash, len, p.settings, n, t.order);
  for (double* line : {t.vertical, t.slash}) {  // sums by block of 128, in place
    for (int b = 0; b < n; ++b) {
      double sum = 0;
      for (int j = b * kSparseBlock; j < std::min(len, (b + 1) * kSparseBlock); ++j) sum += line[j];
      line[b] = sum;
    }
  }
  const bool query_aware =
      FlexDistance(p, head, pooled_k, t.vertical, n, t.flat) < p.settings.flex_tau;
  if (query_aware) n_v = n_s = std::min(p.settings.flex_min_blocks, n);
  t.vertical[0] = t.slash[0] = kForced;  // the first column and the main diagonal
  Largest(t.vertical, n, n_v, false, t.order);
  for (int i = 0; i < n_v; ++i) {
    for (int qb = t.order[i]; qb < n; ++qb) blocks[int64_t{qb} * n + t.order[i]] = 1;
  }
  Largest(t.slash, n, n_s, false, t.order);
  for (int i = 0; i < n_s; ++i) {
    for (int qb = t.order[i]; qb < n; ++qb) blocks[int64_t{qb} * n + qb - t.order[i]] = 1;
  }
  if (query_aware) AddQueryAware(p, t, pooled_q, pooled_k, n, blocks);
}

// Folded keys of 64 neighbouring patches as a tile.
void FoldKeys(const SparsePrefillParams& p, const SparseScratch& s, int kv_head, int tile) {
  const int dim = p.kv.head_dim;
  float* to = s.folded_keys +
              (int64_t{kv_head} * s.fold_tiles + tile) * kFoldTokens * dim * int64_t{kKvPageTokens};
  for (int patch = 0; patch < kKvPageTokens; ++patch) {
    for (int i = 0; i < kFoldTokens; ++i) {
      const int key = (tile * kKvPageTokens + patch) * kFoldTokens + i;
      const bool real = key < p.num_rows;
      const KvTile source =
          real ? TileOf(p.kv, p.kv.page_ids, key / kKvPageTokens, kv_head) : KvTile();
      for (int d = 0; d < dim; ++d) {
        to[(int64_t{i} * dim + d) * kKvPageTokens + patch] =
            real ? ReadTileK(p.kv, source, key % kKvPageTokens, d) : 0.0f;
      }
    }
  }
}

// The blocks of one query block of one head.
void FindXAttention(const SparsePrefillParams& p, const SparseScratch& s, int head, int qb,
                    const PatternThread& t) {
  const int n = s.plan.num_blocks;
  constexpr int kPatches = kSparseBlock / kFoldTokens;
  const int patches = (p.num_rows + kFoldTokens - 1) / kFoldTokens;
  const int first = qb * kPatches, count = std::min(kPatches, patches - first);
  const int64_t stride = int64_t{s.fold_tiles} * kKvPageTokens;
  HWY_DYNAMIC_DISPATCH(FoldedWeightsT)(p, s, head, first, count, t, stride);
  double total = 0;
  for (int kb = 0; kb <= qb; ++kb) {
    t.vertical[kb] = 0;
    for (int r = 0; r < count; ++r) {
      const float* w = t.weights + r * stride;
      for (int j = kb * kPatches; j < std::min((kb + 1) * kPatches, first + r + 1); ++j) {
        t.vertical[kb] += w[j];
      }
    }
    total += t.vertical[kb];
  }
  uint8_t* row = s.plan.Blocks(head) + int64_t{qb} * n;
  std::fill_n(row, n, uint8_t{0});
  row[0] = row[qb] = 1;
  double kept = t.vertical[0] + (qb > 0 ? t.vertical[qb] : 0.0);
  Largest(t.vertical, qb + 1, qb + 1, true, t.order);
  for (int i = 0; i <= qb && kept < p.settings.x_threshold * total; ++i) {
    const int kb = t.order[i];
    if (row[kb]) continue;
    row[kb] = 1;
    kept += t.vertical[kb];
  }
}

struct HeadTask {
  const SparsePrefillParams& p;
  const SparseScratch& s;
  void operator()(int64_t head, int thread) const {
    const PatternThread t = s.Pattern(thread);
    if (p.pattern == SparsePattern::kMInference) {
      FindMInference(p, s, static_cast<int>(head), t);
    } else {
      FindFlexPrefill(p, s, static_cast<int>(head), t);
    }
  }
};

struct FoldTask {
  const SparsePrefillParams& p;
  const SparseScratch& s;
  void operator()(int64_t task, int) const {
    FoldKeys(p, s, static_cast<int>(task / s.fold_tiles), static_cast<int>(task % s.fold_tiles));
  }
};

struct XAttentionTask {
  const SparsePrefillParams& p;
  const SparseScratch& s;
  void operator()(int64_t task, int thread) const {
    const int qb = s.plan.num_blocks - 1 - static_cast<int>(task / p.num_q_heads);
    FindXAttention(p, s, static_cast<int>(task % p.num_q_heads), qb, s.Pattern(thread));
  }
};

}  // namespace

SparseScratch SparseScratch::Of(const SparsePrefillParams& p, int num_threads, int len,
                                void* scratch) {
  SparseScratch s;
  s.head_dim_ = p.kv.head_dim;
  s.pattern_ = p.pattern;
  s.plan.len = len;
  s.plan.num_q_heads = p.num_q_heads;
  s.plan.num_blocks = (len + kSparseBlock - 1) / kSparseBlock;
  s.fold_tiles = (len + kFoldTokens * kKvPageTokens - 1) / (kFoldTokens * kKvPageTokens);
  ScratchCursor cursor(scratch);
  const size_t heads = p.num_q_heads;
  if (p.pattern == SparsePattern::kMInference) {
    s.plan.max_columns = std::min(len, std::max(p.settings.vertical, kMInferenceForcedColumns));
    s.plan.covered = cursor.Take<float>(heads * (len + kKvPageTokens));
    s.plan.columns = cursor.Take<int32_t>(heads * s.plan.max_columns);
    s.plan.column_counts = cursor.Take<int32_t>(heads);
  } else if (p.pattern != SparsePattern::kTriShape) {
    s.plan.blocks = cursor.Take<uint8_t>(heads * s.plan.num_blocks * s.plan.num_blocks);
  }
  if (p.pattern == SparsePattern::kXAttention) {
    s.folded_keys = cursor.Take<float>(static_cast<size_t>(p.kv.num_kv_heads) * s.fold_tiles *
                                       kFoldTokens * p.kv.head_dim * kKvPageTokens);
  }
  ScratchCursor one(nullptr);
  s.Take(one);
  s.thread_bytes = one.used();
  s.threads = cursor.Take<char>(num_threads * s.thread_bytes);
  s.bytes = cursor.used();
  return s;
}

PatternThread SparseScratch::Pattern(int thread) const {
  ScratchCursor cursor(threads + thread * thread_bytes);
  return Take(cursor);
}

PatternThread SparseScratch::Take(ScratchCursor& cursor) const {
  PatternThread t;
  if (pattern_ == SparsePattern::kTriShape) return t;
  const bool fold = pattern_ == SparsePattern::kXAttention;
  const size_t rows = fold                                     ? kSparseBlock / kFoldTokens
                      : pattern_ == SparsePattern::kMInference ? kMInferenceRows
                                                               : kSparseBlock;
  const size_t squares = pattern_ == SparsePattern::kFlexPrefill
                             ? static_cast<size_t>(plan.num_blocks) * plan.num_blocks
                             : 0;
  t.rows = cursor.Take<TileRow>(rows);
  t.folded = cursor.Take<float>(fold ? rows * kFoldTokens * head_dim_ : 0);
  t.weights = cursor.Take<float>(rows * (fold ? fold_tiles * kKvPageTokens : RoundUp64(plan.len)));
  t.vertical = cursor.Take<double>(plan.len);
  t.slash = cursor.Take<double>(plan.len);
  t.order = cursor.Take<int32_t>(std::max<size_t>(plan.len, squares));
  t.flat = cursor.Take<float>(squares);
  t.pooled = cursor.Take<double>(squares > 0 ? size_t{2} * plan.num_blocks * head_dim_ : 0);
  return t;
}

void FindSparsePatterns(const SparsePrefillParams& params, const SparseScratch& scratch,
                        ThreadPool& pool) {
  if (params.pattern == SparsePattern::kTriShape) return;
  if (params.pattern == SparsePattern::kXAttention) {
    const FoldTask fold{params, scratch};
    pool.ParallelFor(int64_t{params.kv.num_kv_heads} * scratch.fold_tiles, std::ref(fold));
    const XAttentionTask task{params, scratch};
    pool.ParallelFor(int64_t{params.num_q_heads} * scratch.plan.num_blocks, std::ref(task));
    return;
  }
  const HeadTask task{params, scratch};
  pool.ParallelFor(params.num_q_heads, std::ref(task));
}

}  // namespace videonsa
#endif  // HWY_ONCE
