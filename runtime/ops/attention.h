#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/paged_kv.h"
#include "runtime/api/attention_account.h"
#include "runtime/api/generate_request.h"
#include "runtime/device/tensor_view.h"

/// What attention needs and reports, one layer and one sequence at a time.
namespace videonsa {

/// Sizes that all layers of a model share.
struct AttentionShape {
  int num_q_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;

  int q_size() const { return num_q_heads * head_dim; }
  int kv_size() const { return num_kv_heads * head_dim; }
};

/// What attention must have room for.
struct AttentionNeeds {
  AttentionShape shape;
  AttentionSemantics semantics = AttentionSemantics::kDense;
  int selected_blocks = 0;
  int max_tokens = 0;        ///< of one sequence, prompt and answer
  int max_decode_rows = 1;   ///< of one call
  int max_prefill_rows = 1;  ///< of one call, unless the semantics takes whole prompts
};

/// Blocks named per row and KV head in PrefillAttentionArgs::blocks.
int ChosenBlocksPerRow(AttentionSemantics semantics, int selected_blocks);

/// What one layer of one sequence spent; added to by every call.
struct AttentionTally {
  BranchPairs pairs;  ///< per query head
  /// released_nsa counts the pairs of both copies of a head; the sum over its 56 data slots is kept
  /// whole and divided when the account is read.
  int64_t selected_slot_pairs = 0;
  /// Training-free patterns differ by head; summed over all query heads.
  int64_t pattern_pairs_all_heads = 0;
  double gate_sums[3] = {};
  int64_t gate_count = 0;
  /// By block, empty unless evidence is wanted: selection weight of vision rows, and softmax mass
  /// of the evidence rows.
  std::vector<double> selection_weight;
  std::vector<double> mass;
};

/// Attention of prompt rows [row_begin, row_end) of one sequence.
///
/// Shapes: q, out    [rows, num_q_heads * head_dim] of the attention type, out overwritten, not
///                   overlapping q
///         gates     [rows, num_q_heads * 3] fp32 logits or no data; vision rows only are read
///         is_vision [rows] on the host and, uploaded, on the device; 1 = vision row
///         blocks    [rows, num_kv_heads, ChosenBlocksPerRow] or null: the chosen blocks, -1 = none
/// Requires: the pages hold every position below row_end; released_nsa: all prompt rows at once.
struct PrefillAttentionArgs {
  AttentionSemantics semantics = AttentionSemantics::kDense;
  int selected_blocks = 0;
  int window_tokens = 0;
  PagedKv kv;
  TensorView q;
  TensorView gates;
  TensorView out;
  const uint8_t* is_vision = nullptr;
  const uint8_t* is_vision_uploaded = nullptr;
  bool has_vision = false;  ///< any vision row in the call
  int row_begin = 0;
  int row_end = 0;
  /// Rows from here on add to the tally's mass; row_end or more: none.
  int mass_begin = INT32_MAX;
  AttentionTally* tally = nullptr;
  int32_t* blocks = nullptr;
};

/// One new row for each of several sequences; host arrays that outlive their use.
///
/// Shapes: page_tables, kv_lens [num_seqs]; kv_lens count the new row
struct DecodeRows {
  const int32_t* const* page_tables = nullptr;
  const int32_t* kv_lens = nullptr;
  int num_seqs = 0;
};

/// Where the layers of a decode step find what they work on.
struct DecodePlaces {
  const void* hidden = nullptr;
  const void* angles = nullptr;
  const void* workspace = nullptr;
  const void* pages = nullptr;
};

}  // namespace videonsa
