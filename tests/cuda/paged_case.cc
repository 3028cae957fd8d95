#include "tests/cuda/paged_case.h"

#include <algorithm>
#include <numeric>

namespace videonsa::gpu_check {

reference::AttentionCase MakeCase(const CaseShape& shape, std::mt19937& rng) {
  reference::AttentionCase c;
  c.len = shape.len;
  c.num_q_heads = shape.num_q_heads;
  c.num_kv_heads = shape.num_kv_heads;
  c.head_dim = shape.head_dim;
  c.block_count = shape.block_count;
  c.window = shape.window;
  const size_t rows = static_cast<size_t>(shape.len);
  const size_t kv_width = static_cast<size_t>(shape.num_kv_heads * shape.head_dim);
  c.q = Normal(rng, rows * shape.num_q_heads * shape.head_dim, 1.2f);
  c.k = Normal(rng, rows * kv_width, 0.8f);
  c.v = Normal(rng, rows * kv_width, 0.7f);
  c.g = Normal(rng, rows * shape.num_q_heads * 3, 0.4f);
  std::vector<float> theme;
  for (size_t row = 0; row < rows; ++row) {
    if (row % kKvPageTokens == 0) theme = Normal(rng, kv_width, 0.9f);
    for (size_t i = 0; i < kv_width; ++i) {
      c.k[row * kv_width + i] = Bf16(c.k[row * kv_width + i] + theme[i]);
      c.v[row * kv_width + i] = Bf16(c.v[row * kv_width + i] + 0.5f * theme[kv_width - 1 - i]);
    }
  }
  if (shape.steepness > 1) {
    for (float& x : c.q) x = Bf16(x * shape.steepness);
    for (size_t i = 0; i < c.g.size(); i += 3) c.g[i] = -30.0f;
    const size_t blocks = rows / kKvPageTokens, block = kKvPageTokens * kv_width;
    for (size_t copies = 0; copies < blocks / 4; ++copies) {
      const size_t from = rng() % blocks * block, to = rng() % blocks * block;
      std::copy_n(c.k.begin() + static_cast<int64_t>(from), block,
                  c.k.begin() + static_cast<int64_t>(to));
    }
  }
  c.is_vision.resize(rows);
  for (size_t row = 0; row < rows; ++row) {
    const bool head = row<std::min<size_t>(5, rows / 4), tail = row + 7> rows && rows > 20;
    c.is_vision[row] = !head && !tail && rng() % 23 != 0;
  }
  return c;
}

PagedCase::PagedCase(const reference::AttentionCase& c, DType kv_type, std::mt19937& rng) {
  const int blocks = (c.len + kKvPageTokens - 1) / kKvPageTokens;
  const int pages = blocks + 3;
  std::vector<int32_t> order(static_cast<size_t>(pages));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), rng);
  page_ids_.assign(order.begin(), order.begin() + blocks);
  ids_ = std::make_unique<DeviceArray<int32_t>>(page_ids_);
  const size_t tiles = static_cast<size_t>(pages) * c.num_kv_heads;
  const size_t bytes = tiles * KvTileElements(c.head_dim) * SizeOf(kv_type);
  k_ = std::make_unique<DeviceArray<uint8_t>>(bytes);
  v_ = std::make_unique<DeviceArray<uint8_t>>(bytes);
  k_pooled_ = std::make_unique<DeviceArray<float>>(tiles * c.head_dim);
  v_pooled_ = std::make_unique<DeviceArray<float>>(tiles * c.head_dim);
  k_->Fill(0xFF), v_->Fill(0xFF), k_pooled_->Fill(0xFF), v_pooled_->Fill(0xFF);
  kv = {kv_type,          k_->get(),   v_->get(),      k_pooled_->get(),
        v_pooled_->get(), ids_->get(), c.num_kv_heads, c.head_dim};
  const int64_t width = int64_t{c.num_kv_heads} * c.head_dim;
  Matrix k(DType::kF32, c.len, width), v(DType::kF32, c.len, width);
  k.Set(c.k);
  v.Set(c.v);
  for (int row = 0; row < c.len;) {
    const int rows = std::min<int>(c.len - row, 1 + static_cast<int>(rng() % 150));
    CudaKvAppendParams append;
    append.kv = kv;
    append.k = k.Rows(row);
    append.v = v.Rows(row);
    append.num_rows = rows;
    append.token_begin = row;
    Must(LaunchKvAppend(append, nullptr), "LaunchKvAppend");
    row += rows;
  }
  Must(cudaDeviceSynchronize(), "LaunchKvAppend");
}

std::vector<int> SampleRows(int len, int count, std::mt19937& rng) {
  std::vector<int> rows = {0, len - 1};
  for (int border : {63, 64, len / 64 * 64 - 1, len / 64 * 64}) {
    if (border >= 0 && border < len) rows.push_back(border);
  }
  while (static_cast<int>(rows.size()) < std::min(count, len)) {
    rows.push_back(static_cast<int>(rng() % static_cast<unsigned>(len)));
  }
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

}  // namespace videonsa::gpu_check
