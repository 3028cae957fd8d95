#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/paged_kv.h"

namespace videonsa {

/// The keep mask of block `block` as floats in `to`, or null if no position up to `last_key` is
/// marked 0 (or `keep_keys` is null). Positions after `last_key` count as kept.
inline const float* KeepOfBlock(const uint8_t* keep_keys, int block, int last_key,
                                float* to /* [64] */) {
  if (keep_keys == nullptr) return nullptr;
  const int begin = block * kKvPageTokens;
  const int count = std::min(kKvPageTokens, last_key + 1 - begin);
  bool all = true;
  for (int i = 0; i < kKvPageTokens; ++i) {
    const bool kept = i >= count || keep_keys[begin + i] != 0;
    to[i] = kept ? 1.0f : 0.0f;
    all = all && kept;
  }
  return all ? nullptr : to;
}

}  // namespace videonsa
