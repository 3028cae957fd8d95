#pragma once

#include <cstdint>
#include <vector>

namespace videonsa {

/// Query-key pairs whose logit was computed for an output, per query head, in integers
/// (attention.md section 6).
struct BranchPairs {
  int64_t compressed = 0;
  int64_t selected = 0;
  int64_t window = 0;
  int64_t dense = 0;  ///< text and decode rows

  int64_t total() const { return compressed + selected + window + dense; }
  BranchPairs& operator+=(const BranchPairs& other) {
    compressed += other.compressed;
    selected += other.selected;
    window += other.window;
    dense += other.dense;
    return *this;
  }
  friend bool operator==(const BranchPairs&, const BranchPairs&) = default;
};

/// Mean sigmoid gates over the vision rows, 0..1.
struct BranchGates {
  double compressed = 0;
  double selected = 0;
  double window = 0;
};

/// What one sequence spent.
struct AttentionAccount {
  std::vector<BranchPairs> layers;  ///< one per decoder layer
  /// Sum over rows and layers of (row + 1): what causal attention would have scored.
  int64_t dense_pairs = 0;
  std::vector<BranchGates> gates;  ///< one per layer if asked for, else empty
  /// Share of what the question's rows attended to by block of 64 prompt tokens; empty unless
  /// evidence was asked for. Sums to 1 if any block was selected.
  std::vector<double> block_share;
  /// Share of the prompt's blocks up to its last vision token that some row and head selected, mean
  /// over the layers; negative unless evidence was asked for and blocks were selected.
  double selected_coverage = -1;

  BranchPairs total() const {
    BranchPairs sum;
    for (const BranchPairs& layer : layers) sum += layer;
    return sum;
  }
};

}  // namespace videonsa
