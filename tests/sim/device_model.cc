#include "tests/sim/device_model.h"

#include <algorithm>

namespace videonsa::sim {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kSelectedOthers = 31;  // selected blocks beside the row's own
constexpr int64_t kWindow = 512;

// Pairs of causal NSA rows [0, rows), to whole blocks: see attention_pairs.cc for one row.
int64_t SparsePairs(int64_t rows) {
  const int64_t blocks = rows / kBlock;
  const int64_t compressed = kBlock * blocks * (blocks - 1) / 2 + blocks;
  const int64_t few = std::min(blocks, kSelectedOthers);
  const int64_t others = few * (few - 1) / 2 + (blocks - few) * kSelectedOthers;
  const int64_t selected = kBlock * kBlock * others + blocks * kBlock * (kBlock + 1) / 2;
  const int64_t partial = std::min(rows, kWindow);
  const int64_t window = partial * (partial + 1) / 2 + (rows - partial) * kWindow;
  return compressed + selected + window;
}

}  // namespace

int64_t PromptLayout::PairsUpTo(int64_t row) const {
  const int64_t sparse = std::min<int64_t>(row, kTextBefore + vision_tokens);
  const int64_t dense = row - sparse;
  return SparsePairs(sparse) + dense * sparse + dense * (dense + 1) / 2;
}

double DeviceModel::VisionSeconds(double tokens) const {
  return tokens * vision_flop_per_token / (flops * compute_efficiency);
}

double DeviceModel::PrefillSeconds(double tokens, double pairs) const {
  return (tokens * prompt_flop_per_token + pairs * pair_flop) / (flops * compute_efficiency);
}

double DeviceModel::DecodeSeconds(double kv_tokens) const {
  return (weight_bytes + kv_tokens * kv_bytes_per_token) / (bytes_per_second * memory_efficiency);
}

ExecutorInfo H200Info() {
  ExecutorInfo info;
  info.num_layers = 28;
  info.num_q_heads = 28;
  info.num_kv_heads = 4;
  info.head_dim = 128;
  info.hidden_size = 3584;
  info.vocab_size = 152064;
  info.max_context_tokens = 131072;
  info.semantics = AttentionSemantics::kCausalNsa;
  info.selected_blocks = 32;
  info.window_tokens = 512;
  info.has_gates = true;
  info.num_pages = 34180;
  info.page_bytes = 64 * 57344;
  return info;
}

}  // namespace videonsa::sim
