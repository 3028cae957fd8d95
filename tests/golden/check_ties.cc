// Choices of blocks that differ between two devices: ties that rounding decides, or errors?
#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_format.h"
#include "kernels/reference/causal_nsa.h"
#include "kernels/reference/kv_read.h"
#include "tests/golden/check_device.h"

namespace videonsa::golden {
namespace {

// Distance of the logarithms of two weights below which fp32 may order them either way: a logit of
// size x is known to about x 2^-22, and so are sums of some hundreds of products (as in
// cuda_kernel_check).
double CloseLogs(double largest_logit) { return std::max(1e-4, largest_logit * 1e-5); }

reference::AttentionCase CaseOf(const AnswerTrace& trace, const LayerRows& layer) {
  reference::AttentionCase c;
  c.num_q_heads = trace.shape.num_q_heads;
  c.num_kv_heads = trace.shape.num_kv_heads;
  c.head_dim = trace.shape.head_dim;
  c.len = static_cast<int>(layer.q.size()) / trace.shape.q_size();
  c.block_count = trace.attention.selected_blocks;
  c.window = trace.attention.window_tokens;
  c.q = layer.q;
  c.k = c.v = layer.k;  // what is chosen does not depend on the values
  c.g.assign(static_cast<size_t>(c.len) * c.num_q_heads * 3, 0);
  c.is_vision.assign(static_cast<size_t>(c.len), 1);
  return c;
}

// How far the blocks that only one of two lists has are from the lightest chosen one, in units of
// what rounding may do; the lists are ascending, with -1 behind.
double Distance(const reference::CausalRow& row, size_t kv_head, const int32_t* a, const int32_t* b,
                int count) {
  const std::vector<double>& logs = row.log_weights[kv_head];
  double border = INFINITY;
  for (int block : row.blocks[kv_head]) {
    if (block < static_cast<int>(logs.size())) border = std::min(border, logs[block]);
  }
  const std::set<int32_t> left(a, a + count), right(b, b + count);
  std::vector<int32_t> other;
  std::set_symmetric_difference(left.begin(), left.end(), right.begin(), right.end(),
                                std::back_inserter(other));
  double farthest = 0;
  for (int32_t block : other) {
    const bool earlier = block >= 0 && block < static_cast<int32_t>(logs.size());
    const double distance =
        earlier ? std::abs(logs[static_cast<size_t>(block)] - border) : INFINITY;
    farthest = std::max(farthest, std::isnan(distance) ? INFINITY : distance);
  }
  return farthest / CloseLogs(row.largest_logit[kv_head]);
}

}  // namespace

void KeepRows(const TensorView& q, int row_begin, const PagedKv& kv, Backend& backend,
              LayerRows& layer) {
  const std::vector<float> rows = HostFloats(backend, q);
  layer.q.insert(layer.q.end(), rows.begin(), rows.end());
  for (int row = row_begin; row < row_begin + static_cast<int>(q.rows()); ++row) {
    for (int head = 0; head < kv.num_kv_heads; ++head) {
      for (int d = 0; d < kv.head_dim; ++d) {
        layer.k.push_back(static_cast<float>(ReadK(kv, row, head, d)));
      }
    }
  }
}

ChoiceTies FirstDifferences(const AnswerTrace& cpu, const AnswerTrace& gpu) {
  ChoiceTies ties;
  if (cpu.attention.semantics != AttentionSemantics::kCausalNsa || cpu.layers.empty() ||
      cpu.choices.size() != gpu.choices.size()) {
    return ties;
  }
  for (size_t i = 0; i < cpu.choices.size(); ++i) {
    if (cpu.choices[i].blocks == gpu.choices[i].blocks) continue;
    if (ties.layer < 0 || cpu.choices[i].layer < ties.layer) ties.layer = cpu.choices[i].layer;
  }
  if (ties.layer < 0) return ties;
  const reference::AttentionCase c = CaseOf(cpu, cpu.layers[static_cast<size_t>(ties.layer)]);
  const int count = c.block_count, heads = c.num_kv_heads;
  for (size_t i = 0; i < cpu.choices.size(); ++i) {
    if (cpu.choices[i].layer != ties.layer) continue;
    const int32_t* a = cpu.choices[i].blocks.data();
    const int32_t* b = gpu.choices[i].blocks.data();
    const int rows = static_cast<int>(cpu.choices[i].blocks.size()) / (heads * count);
    for (int at = 0; at < rows * heads; ++at, a += count, b += count) {
      ++ties.all;
      if (std::equal(a, a + count, b)) continue;
      ++ties.differing;
      const reference::CausalRow row =
          reference::CausalNsaRow(c, cpu.choices[i].row_begin + at / heads);
      const double distance = Distance(row, static_cast<size_t>(at % heads), a, b, count);
      ties.farthest = std::max(ties.farthest, distance);
      ties.decided += distance > 1;
    }
  }
  return ties;
}

std::string ChoiceTies::Text() const {
  return absl::StrFormat(
      "choices part in layer %d, for %d of %d rows and KV heads, %d of them further apart than "
      "rounding (the farthest at %.2g of it)",
      layer, differing, all, decided, farthest);
}

}  // namespace videonsa::golden
