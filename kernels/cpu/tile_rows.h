#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/attention/attention_params.h"
#include "kernels/common/bf16.h"

namespace videonsa {

/// How a tile is stored and multiplied.
enum class TileKind : uint8_t {
  kF32,
  kBf16Wide,  ///< bf16 pages, products in fp32
  kBf16Dot,   ///< bf16 pages, pair products of bf16 operands, fp32 sums
};

/// True if the machine has the bf16 pair-product instruction.
inline bool MachineMultipliesBf16Pairs() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

/// K and V of one page and KV head.
struct KvTile {
  const void* k = nullptr;
  const void* v = nullptr;
  /// [64] 1 or 0; a key with 0 acts as a zero key with a zero value. Null: all are kept.
  const float* keep = nullptr;
  /// [64] 1 or 0; a key with 0 is not seen at all. Null: all are seen.
  const float* visible = nullptr;
};

/// One (token, query head) while it walks over tiles.
///
/// `state` holds StateFloats(head_dim) floats: the weighted sum of values, the lane sums of the
/// weights, and the reference (log2 of the weight that counts as 1).
struct TileRow {
  const float* q = nullptr;           ///< [head_dim]
  const uint32_t* q_pairs = nullptr;  ///< [head_dim / 2] bf16 pairs; kBf16Dot only
  float* state = nullptr;
  int lo = 0;  ///< visible keys of the current tile
  int hi = kKvPageTokens;
};

/// Keys of a tile that any row of a group sees.
struct KeyRange {
  size_t first = 0;
  size_t last = 0;
};

constexpr size_t StateReference(size_t head_dim) { return head_dim + 16; }
constexpr size_t StateFloats(size_t head_dim) { return head_dim + 32; }

/// log2(e): turns natural logits into powers of two.
inline constexpr float kLog2E = 1.44269504088896340736f;
inline constexpr float kLn2 = 0.69314718055994530942f;

/// Tiles of block `block` of the sequence for KV head `kv_head`.
inline KvTile TileOf(const PagedKv& kv, const int32_t* page_ids, int block, int kv_head) {
  const int64_t tile = int64_t{page_ids[block]} * kv.num_kv_heads + kv_head;
  const int64_t offset =
      tile * KvTileElements(kv.head_dim) * static_cast<int64_t>(SizeOf(kv.dtype));
  return KvTile{static_cast<const char*>(kv.k_pages) + offset,
                static_cast<const char*>(kv.v_pages) + offset};
}

/// One stored number of a tile, whatever its layout.
inline float ReadTileK(const PagedKv& kv, const KvTile& tile, int token, int dim) {
  if (kv.dtype == DType::kF32)
    return static_cast<const float*>(tile.k)[dim * kKvPageTokens + token];
  return FromBf16(
      static_cast<const uint16_t*>(tile.k)[((dim / 2) * kKvPageTokens + token) * 2 + dim % 2]);
}
inline float ReadTileV(const PagedKv& kv, const KvTile& tile, int token, int dim) {
  if (kv.dtype == DType::kF32) return static_cast<const float*>(tile.v)[token * kv.head_dim + dim];
  return FromBf16(
      static_cast<const uint16_t*>(tile.v)[((token / 2) * kv.head_dim + dim) * 2 + token % 2]);
}

/// Hands out pieces of a Scratch, 64-byte aligned. Built twice: once over nothing to count bytes.
class ScratchCursor {
 public:
  explicit ScratchCursor(void* data) : base_(static_cast<char*>(data)) {}
  template <typename T>
  T* Take(size_t count) {
    char* at = base_ + used_;
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(at);
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace videonsa
