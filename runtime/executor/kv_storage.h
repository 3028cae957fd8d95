#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "runtime/ops/attention.h"

namespace videonsa {

/// The memory that page ids index: K, V and pooled rows of all layers.
class KvStorage {
 public:
  /// Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<KvStorage> Create(Device& device, const AttentionShape& shape, DType dtype,
                                          int num_layers, int num_pages);

  /// Bytes of one page over all layers.
  static int64_t PageBytes(const AttentionShape& shape, DType dtype, int num_layers);

  int num_pages() const { return num_pages_; }
  /// Pages of one layer as the sequence with `page_ids` sees them.
  PagedKv Layer(int layer, const int32_t* page_ids) const;

 private:
  KvStorage(DeviceBuffer buffer, const AttentionShape& shape, DType dtype, int num_pages)
      : buffer_(std::move(buffer)), shape_(shape), dtype_(dtype), num_pages_(num_pages) {}

  DeviceBuffer buffer_;
  AttentionShape shape_;
  DType dtype_;
  int num_pages_;
};

}  // namespace videonsa
