#include "kernels/cpu/released_text_rows.h"

#include <algorithm>

namespace videonsa {

void MeansOfTextRow(const PagedKv& kv, const ValueSums& sums, int kv_head, int position, int window,
                    const int32_t* blocks, int kept, TextRowMeans& means) {
  const int head_dim = kv.head_dim;
  const int num_blocks = (sums.num_rows + kKvPageTokens - 1) / kKvPageTokens;
  const int own = position / kKvPageTokens;
  const int last_begin = (num_blocks - 1) * kKvPageTokens;
  std::fill(means.cmp, means.cmp + head_dim, 0.0);
  std::fill(means.slc, means.slc + head_dim, 0.0);
  std::fill(means.win, means.win + head_dim, 0.0);
  // Block means weigh alike whatever their length: the last one is scaled up to a full block.
  AddKeptRange(kv, sums, kv_head, last_begin, sums.num_rows, means.cmp);
  const double up = static_cast<double>(kKvPageTokens) / (sums.num_rows - last_begin);
  for (int d = 0; d < head_dim; ++d) means.cmp[d] *= up;
  AddKeptRange(kv, sums, kv_head, own * kKvPageTokens, last_begin, means.cmp);
  int64_t keys = 0;
  for (int i = 0; i < kept; ++i) {
    if (blocks[i] < 0) continue;
    const int begin = blocks[i] * kKvPageTokens;
    const int end = std::min(begin + kKvPageTokens, position + 1);
    AddKeptRange(kv, sums, kv_head, begin, end, means.slc);
    keys += end - begin;
  }
  const int window_begin = std::max(0, position - window + 1);
  AddKeptRange(kv, sums, kv_head, window_begin, position + 1, means.win);
  for (int d = 0; d < head_dim; ++d) {
    means.cmp[d] /= int64_t{num_blocks - own} * kKvPageTokens;
    means.slc[d] /= keys > 0 ? static_cast<double>(keys) : 1.0;
    means.win[d] /= position + 1 - window_begin;
  }
}

}  // namespace videonsa
