#pragma once

#include "kernels/cpu/value_sums.h"
#include "kernels/nsa/nsa_params.h"

namespace videonsa {

/// The sparse pass of one text row under one KV head: its query is zero, so the branches are means
/// of kept values over the own and later blocks, the chosen blocks and the window.
struct TextRowMeans {
  double cmp[256];
  double slc[256];
  double win[256];
};

/// Shapes: blocks [kept] the row's chosen blocks, -1 = empty place
/// Requires: kv.head_dim <= 256.
void MeansOfTextRow(const PagedKv& kv, const ValueSums& sums, int kv_head, int position, int window,
                    const int32_t* blocks, int kept, TextRowMeans& means);

}  // namespace videonsa
