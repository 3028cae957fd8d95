#include "runtime/executor/kv_storage.h"

#include <utility>

#include "runtime/base/status_macros.h"

namespace videonsa {

int64_t KvStorage::PageBytes(const AttentionShape& shape, DType dtype, int num_layers) {
  return num_layers * KvPageBytes(dtype, shape.num_kv_heads, shape.head_dim);
}

absl::StatusOr<KvStorage> KvStorage::Create(Device& device, const AttentionShape& shape,
                                            DType dtype, int num_layers, int num_pages) {
  VNSA_ASSIGN_OR_RETURN(
      DeviceBuffer buffer,
      device.Allocate(num_pages * PageBytes(shape, dtype, num_layers), "KV pages"));
  return KvStorage(std::move(buffer), shape, dtype, num_pages);
}

PagedKv KvStorage::Layer(int layer, const int32_t* page_ids) const {
  const int64_t tiles = num_pages_ * shape_.num_kv_heads * KvTileElements(shape_.head_dim) *
                        static_cast<int64_t>(SizeOf(dtype_));
  const int64_t pooled =
      int64_t{num_pages_} * shape_.kv_size() * static_cast<int64_t>(sizeof(float));
  char* base = static_cast<char*>(buffer_.data()) + layer * 2 * (tiles + pooled);
  PagedKv kv;
  kv.dtype = dtype_;
  kv.k_pages = base;
  kv.v_pages = base + tiles;
  kv.k_pooled = reinterpret_cast<float*>(base + 2 * tiles);
  kv.v_pooled = reinterpret_cast<float*>(base + 2 * tiles + pooled);
  kv.page_ids = page_ids;
  kv.num_kv_heads = shape_.num_kv_heads;
  kv.head_dim = shape_.head_dim;
  return kv;
}

}  // namespace videonsa
