#include "kernels/cpu/vision_attention.h"

#include <algorithm>
#include <functional>

#include "kernels/common/bf16.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/vision_attention.cc"
// clang-format off
#include "kernels/cpu/highway_targets.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/tile-inl.h"

namespace videonsa {
#ifndef VIDEONSA_KERNELS_CPU_VISION_ATTENTION_ONCE_
#define VIDEONSA_KERNELS_CPU_VISION_ATTENTION_ONCE_
// Rows that walk over the tiles together.
inline constexpr int kVisionRowGroup = 48;

// Scratch of one thread.
struct VisionScratch {
  VisionScratch(void* base, int max_segment, int head_dim) {
    ScratchCursor cursor(base);
    const size_t tiles = static_cast<size_t>((max_segment + kKvPageTokens - 1) / kKvPageTokens);
    const size_t elements = tiles * static_cast<size_t>(KvTileElements(head_dim));
    k_tiles = cursor.Take<float>(elements);
    v_tiles = cursor.Take<float>(elements);
    states = cursor.Take<float>(kVisionRowGroup * StateFloats(static_cast<size_t>(head_dim)));
    q_pairs = cursor.Take<uint32_t>(kVisionRowGroup * static_cast<size_t>(head_dim) / 2);
    row = cursor.Take<float>(static_cast<size_t>(head_dim));
    rows = cursor.Take<TileRow>(kVisionRowGroup);
    bytes = cursor.used();
  }
  float* k_tiles;
  float* v_tiles;
  float* states;
  uint32_t* q_pairs;
  float* row;
  TileRow* rows;
  size_t bytes;
};
#endif
}  // namespace videonsa

HWY_BEFORE_NAMESPACE();
namespace videonsa {
namespace HWY_NAMESPACE {

template <TileKind kKind>
struct VisionTask {
  const VisionAttentionParams& p;
  void* scratch;
  int max_segment;
  size_t thread_bytes;

  HWY_ATTR void operator()(int64_t task, int thread) const {
    const int segment = static_cast<int>(task / p.num_heads);
    const int head = static_cast<int>(task % p.num_heads);
    const int begin = p.segments[segment];
    const int count = p.segments[segment + 1] - begin;
    const VisionScratch mine(static_cast<char*>(scratch) + thread * thread_bytes, max_segment,
                             p.head_dim);
    Arrange(begin, count, head, mine);
    for (int first = 0; first < count; first += kVisionRowGroup) {
      AttendRows(begin + first, std::min(kVisionRowGroup, count - first), head, count, mine);
    }
  }

  // q (part 0), k (1) or v (2) of one row and head.
  const float* Part(int64_t row, int part, int head) const {
    return p.qkv + row * p.qkv_stride + (int64_t{part} * p.num_heads + head) * p.head_dim;
  }

  // Lays the segment's K and V out as attention tiles (kernels/attention/paged_kv.h).
  void Arrange(int begin, int count, int head, const VisionScratch& mine) const {
    const int64_t elements = KvTileElements(p.head_dim);
    for (int i = 0; i < count; ++i) {
      const float* k = Part(begin + i, 1, head);
      const float* v = Part(begin + i, 2, head);
      const int64_t offset = i / kKvPageTokens * elements;
      const int token = i % kKvPageTokens;
      if constexpr (kKind == TileKind::kF32) {
        float* k_tile = mine.k_tiles + offset;
        float* v_tile = mine.v_tiles + offset + int64_t{token} * p.head_dim;
        for (int d = 0; d < p.head_dim; ++d) k_tile[d * kKvPageTokens + token] = k[d];
        std::copy_n(v, p.head_dim, v_tile);
      } else {
        uint16_t* k_tile = reinterpret_cast<uint16_t*>(mine.k_tiles) + offset;
        uint16_t* v_tile = reinterpret_cast<uint16_t*>(mine.v_tiles) + offset;
        for (int d = 0; d < p.head_dim; ++d) {
          k_tile[((d / 2) * kKvPageTokens + token) * 2 + d % 2] = RoundToBf16(k[d]);
          v_tile[((token / 2) * p.head_dim + d) * 2 + token % 2] = RoundToBf16(v[d]);
        }
      }
    }
  }

  HWY_ATTR void AttendRows(int64_t first, int num_rows, int head, int count,
                           const VisionScratch& mine) const {
    const size_t head_dim = static_cast<size_t>(p.head_dim);
    for (int r = 0; r < num_rows; ++r) {
      TileRow& row = mine.rows[r];
      row = TileRow{Part(first + r, 0, head)};
      row.state = mine.states + static_cast<size_t>(r) * StateFloats(head_dim);
      if constexpr (kKind == TileKind::kBf16Dot) {
        uint32_t* q_pairs = mine.q_pairs + static_cast<size_t>(r) * (head_dim / 2);
        RowToBf16(row.q, head_dim, q_pairs);
        row.q_pairs = q_pairs;
      }
      ResetState(row.state, head_dim);
    }
    const int64_t tile_bytes =
        KvTileElements(p.head_dim) * (kKind == TileKind::kF32 ? int64_t{4} : int64_t{2});
    for (int key = 0; key < count; key += kKvPageTokens) {
      const int64_t offset = key / kKvPageTokens * tile_bytes;
      const KvTile tile{reinterpret_cast<const char*>(mine.k_tiles) + offset,
                        reinterpret_cast<const char*>(mine.v_tiles) + offset};
      const int keys = std::min(kKvPageTokens, count - key);
      for (int r = 0; r < num_rows; ++r) mine.rows[r].hi = keys;
      AttendTile<kKind>(mine.rows, num_rows, tile, head_dim, p.scale * kLog2E);
    }
    for (int r = 0; r < num_rows; ++r) Write(mine.rows[r], first + r, head, mine.row);
  }

  HWY_ATTR void Write(const TileRow& row, int64_t index, int head, float* buffer) const {
    const size_t head_dim = static_cast<size_t>(p.head_dim);
    const int64_t offset = index * p.out_stride + int64_t{head} * p.head_dim;
    if (p.out_dtype == DType::kF32) {
      WriteRow(row.state, head_dim, static_cast<float*>(p.out) + offset);
      return;
    }
    WriteRow(row.state, head_dim, buffer);
    uint16_t* out = static_cast<uint16_t*>(p.out) + offset;
    for (size_t i = 0; i < head_dim; i += kLanes) {
      StoreBf16(hn::LoadU(FloatTag(), buffer + i), out + i);
    }
  }
};

void VisionAttentionT(const VisionAttentionParams& p, void* scratch, ThreadPool& pool) {
  int max_segment = 0;
  for (int segment = 0; segment < p.num_segments; ++segment) {
    max_segment = std::max(max_segment, p.segments[segment + 1] - p.segments[segment]);
  }
  const size_t thread_bytes = VisionScratch(nullptr, max_segment, p.head_dim).bytes;
  const int64_t tasks = int64_t{p.num_segments} * p.num_heads;
  if (kTargetHasPairDot && p.bf16_products && MachineMultipliesBf16Pairs()) {
    const VisionTask<TileKind::kBf16Dot> task{p, scratch, max_segment, thread_bytes};
    pool.ParallelFor(tasks, std::ref(task));
  } else {
    const VisionTask<TileKind::kF32> task{p, scratch, max_segment, thread_bytes};
    pool.ParallelFor(tasks, std::ref(task));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace videonsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace videonsa {
HWY_EXPORT(VisionAttentionT);

size_t VisionAttentionScratchBytes(int num_threads, int max_segment, int head_dim) {
  return VisionScratch(nullptr, max_segment, head_dim).bytes * static_cast<size_t>(num_threads);
}

void VisionAttention(const VisionAttentionParams& params, void* scratch, ThreadPool& pool) {
  if (params.num_segments == 0) return;
  HWY_DYNAMIC_DISPATCH(VisionAttentionT)(params, scratch, pool);
}

}  // namespace videonsa
#endif  // HWY_ONCE
