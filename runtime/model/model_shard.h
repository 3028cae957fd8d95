#pragma once

#include <cstdint>

#include "runtime/device/collective.h"

namespace videonsa {

/// What one rank holds of a model that several share, and computes.
///
/// Divided are KV heads with their query heads (rows of q, k, v, columns of o), the columns of the
/// MLP, the inner columns of the branch gates and the vocabulary of the head. Whole on every rank:
/// norms, embedding table and vision tower, whose temporal patches are divided instead.
struct ModelShard {
  Collective* collective = nullptr;  ///< null: one rank, which holds everything
  /// False: attention is whole on every rank and only MLP and head are divided. For released_nsa,
  /// where a query head attends to the keys of two KV heads that may lie on different ranks.
  bool split_heads = true;

  int rank() const { return collective == nullptr ? 0 : collective->rank(); }
  int num_ranks() const { return collective == nullptr ? 1 : collective->num_ranks(); }
  bool divided() const { return num_ranks() > 1; }
  bool heads_divided() const { return divided() && split_heads; }

  RankShare Part(int64_t total) const { return ShareOf(total, rank(), num_ranks()); }
  /// As Part for what attention has.
  RankShare HeadPart(int64_t total) const {
    return heads_divided() ? Part(total) : RankShare{0, total};
  }
};

}  // namespace videonsa
