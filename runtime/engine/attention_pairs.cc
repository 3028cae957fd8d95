#include "runtime/engine/attention_pairs.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace videonsa {
namespace {

constexpr int64_t kBlock = kPageTokens;
constexpr int kReleasedMaxBlocks = 32;  // the released kernel keeps 32 lanes

int NextPowerOfTwo(int value) {
  int power = 1;
  while (power < value) power *= 2;
  return power;
}

// Causal NSA, vision row i: complete blocks before it, own block and B - 1 earlier, window.
BranchPairs CausalVisionRow(int64_t i, const AttentionSettings& attention) {
  const int64_t own = i / kBlock;
  BranchPairs row;
  row.compressed = (i + 1) / kBlock;
  const int64_t others = std::min<int64_t>(std::max(attention.selected_blocks - 1, 0), own);
  row.selected = attention.selected_blocks > 0 ? others * kBlock + i % kBlock + 1 : 0;
  row.window = std::min<int64_t>(attention.window_tokens, i + 1);
  return row;
}

// Released NSA, vision row i of `length`: own and later blocks, at most n blocks, window; every
// head has two copies.
BranchPairs ReleasedVisionRow(int64_t i, int64_t length, const AttentionSettings& attention) {
  const int64_t own = i / kBlock;
  const int64_t blocks = (length + kBlock - 1) / kBlock;
  const int64_t chosen = std::min<int64_t>(
      std::min(NextPowerOfTwo(std::max(attention.selected_blocks, 1)), kReleasedMaxBlocks),
      own + 1);
  BranchPairs row;
  row.compressed = 2 * (blocks - own);
  row.selected = 2 * ((chosen - 1) * kBlock + i % kBlock + 1);
  row.window = 2 * std::min<int64_t>(attention.window_tokens, i + 1);
  return row;
}

}  // namespace

std::vector<uint8_t> VisionRows(const SequenceSpec& spec) {
  const size_t length = spec.token_ids.size();
  VNSA_CHECK_EQ(spec.positions.size(), 3 * length);
  std::vector<uint8_t> rows(length, 0);
  if (spec.attention.semantics == AttentionSemantics::kReleasedNsa) {
    const int32_t* t = spec.positions.data();
    const int32_t* h = t + length;
    const int32_t* w = h + length;
    for (size_t i = 0; i < length; ++i) rows[i] = !(t[i] == h[i] && h[i] == w[i]);
    return rows;
  }
  for (const VisionSpan& span : spec.vision_spans) {
    VNSA_CHECK_LE(static_cast<size_t>(span.token_begin + span.num_tokens), length);
    std::fill_n(rows.begin() + span.token_begin, span.num_tokens, uint8_t{1});
  }
  return rows;
}

PairForecast ForecastPairs(const std::vector<uint8_t>& vision_rows,
                           const AttentionSettings& attention) {
  const int64_t length = static_cast<int64_t>(vision_rows.size());
  PairForecast forecast;
  forecast.cumulative.reserve((length + kBlock - 1) / kBlock);
  for (int64_t i = 0; i < length; ++i) {
    if (vision_rows[i] && attention.semantics == AttentionSemantics::kCausalNsa) {
      forecast.pairs += CausalVisionRow(i, attention);
    } else if (vision_rows[i] && attention.semantics == AttentionSemantics::kReleasedNsa) {
      forecast.pairs += ReleasedVisionRow(i, length, attention);
    } else {
      forecast.pairs.dense += i + 1;
    }
    if ((i + 1) % kBlock == 0 || i + 1 == length) {
      forecast.cumulative.push_back(forecast.pairs.total());
    }
  }
  forecast.dense_pairs = length * (length + 1) / 2;
  return forecast;
}

int64_t PairForecast::Between(int64_t begin, int64_t end) const {
  const auto upto = [this](int64_t row) -> int64_t {
    if (row <= 0 || cumulative.empty()) return 0;
    const size_t block = static_cast<size_t>((row + kBlock - 1) / kBlock) - 1;
    return cumulative[std::min(block, cumulative.size() - 1)];
  };
  return std::max<int64_t>(upto(end) - upto(begin), 0);
}

}  // namespace videonsa
