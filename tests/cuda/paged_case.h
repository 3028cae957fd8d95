#pragma once

#include <memory>

#include "kernels/attention/cuda_attention.h"
#include "kernels/reference/attention_case.h"
#include "tests/cuda/gpu_check.h"

namespace videonsa::gpu_check {

/// Shape of a generated sequence.
struct CaseShape {
  int len = 0;
  int num_q_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int block_count = 4;
  int window = 32;
  float steepness = 1;  ///< of queries; above 1 some blocks have the keys of others
};

/// A random sequence: text, vision with a few text rows between, text; neighbouring keys agree, so
/// that blocks differ. All numbers are exact in bf16. Steep sequences have no compression branch in
/// their output: its logits are sums of rounded means.
reference::AttentionCase MakeCase(const CaseShape& shape, std::mt19937& rng);

/// The sequence's K and V in pages on the device, appended in uneven chunks; pages lie scattered,
/// and everything not written is NaN.
class PagedCase {
 public:
  PagedCase(const reference::AttentionCase& c, DType kv_type, std::mt19937& rng);

  PagedKv kv;
  const std::vector<int32_t>& page_ids() const { return page_ids_; }
  std::vector<uint8_t> KBytes() const { return k_->Get(); }
  std::vector<uint8_t> VBytes() const { return v_->Get(); }
  std::vector<float> KPooled() const { return k_pooled_->Get(); }
  std::vector<float> VPooled() const { return v_pooled_->Get(); }

 private:
  std::vector<int32_t> page_ids_;
  std::unique_ptr<DeviceArray<int32_t>> ids_;
  std::unique_ptr<DeviceArray<uint8_t>> k_, v_;
  std::unique_ptr<DeviceArray<float>> k_pooled_, v_pooled_;
};

/// `count` rows spread over [0, len), borders of blocks among them.
std::vector<int> SampleRows(int len, int count, std::mt19937& rng);

}  // namespace videonsa::gpu_check
