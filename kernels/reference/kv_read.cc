#include "kernels/reference/kv_read.h"

#include "kernels/common/bf16.h"

namespace videonsa {
namespace {

double Read(const PagedKv& kv, const void* pages, int64_t element) {
  if (kv.dtype == DType::kF32) return static_cast<const float*>(pages)[element];
  return FromBf16(static_cast<const uint16_t*>(pages)[element]);
}

int64_t TileBegin(const PagedKv& kv, int position, int kv_head) {
  const int64_t page = kv.page_ids[position / kKvPageTokens];
  return (page * kv.num_kv_heads + kv_head) * KvTileElements(kv.head_dim);
}

}  // namespace

double ReadK(const PagedKv& kv, int position, int kv_head, int dim) {
  const int64_t token = position % kKvPageTokens;
  const int64_t element = kv.dtype == DType::kF32
                              ? dim * int64_t{kKvPageTokens} + token
                              : ((dim / 2) * int64_t{kKvPageTokens} + token) * 2 + dim % 2;
  return Read(kv, kv.k_pages, TileBegin(kv, position, kv_head) + element);
}

double ReadV(const PagedKv& kv, int position, int kv_head, int dim) {
  const int64_t token = position % kKvPageTokens;
  const int64_t element = kv.dtype == DType::kF32
                              ? token * kv.head_dim + dim
                              : ((token / 2) * kv.head_dim + dim) * 2 + token % 2;
  return Read(kv, kv.v_pages, TileBegin(kv, position, kv_head) + element);
}

}  // namespace videonsa
