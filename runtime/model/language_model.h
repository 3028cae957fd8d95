#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/device/device.h"
#include "runtime/model/config.h"
#include "runtime/model/model_shard.h"
#include "runtime/model/weights.h"
#include "runtime/ops/backend.h"

namespace videonsa {

/// Sees intermediate values of a forward pass, on the device; for goldens.
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;
  /// Hidden states that enter layer 0.
  virtual void OnEmbeddings(int row_begin, const TensorView& hidden) {}
  /// Rotated queries [rows, q_size] before a layer's attention; its pages hold these rows' keys.
  virtual void OnQueries(int layer, int row_begin, const TensorView& q, const PagedKv& kv) {}
  /// Attention results before o_proj, and chosen blocks [rows, num_kv_heads * n] (kI32) or no data.
  virtual void OnAttention(int layer, int row_begin, const TensorView& attended,
                           const TensorView& blocks) {}
  /// Hidden states that leave a layer.
  virtual void OnLayer(int layer, int row_begin, const TensorView& hidden) {}
  /// Logits of the row that token `step` of the answer is sampled from.
  virtual void OnLogits(int step, const TensorView& logits) {}
};

/// Attention of one sequence's prefill, the same in all layers.
struct PrefillContext {
  AttentionSemantics semantics = AttentionSemantics::kDense;
  int selected_blocks = 0;
  int window_tokens = 0;
  const uint8_t* is_vision = nullptr;           ///< [prompt rows]
  const uint8_t* is_vision_uploaded = nullptr;  ///< the same on the device, for one step
  int mass_begin = INT32_MAX;                   ///< rows from here on are evidence rows
  /// Rows from here on leave the last layer. Nobody needs earlier ones behind its attention, so
  /// they are not finished there and hold garbage then, unless an observer looks.
  int output_begin = 0;
  AttentionTally* tallies = nullptr;  ///< [num_layers]
  ForwardObserver* observer = nullptr;
};

/// The decoder: embeddings in, logits out. Holds no state of sequences.
///
/// Of a model that ranks share, it runs a rank's part (ModelShard): heads, pages and observed
/// attention are the rank's, hidden states and logits the whole model's and alike on all ranks.
/// All ranks make the same calls.
/// Owner: the worker thread. All matrices are [rows, columns] on the backend's device.
/// Source: preprocess-and-model, sections 6.2 and 6.3.
class LanguageModel {
 public:
  /// `config`, `weights` and `backend` outlive the model.
  LanguageModel(const ModelConfig& config, const ModelShard& shard, const ModelWeights& weights,
                Backend& backend);

  /// Rows of a call of Logits.
  static constexpr int kMaxLogitRows = 64;

  const AttentionShape& shape() const { return shape_; }  ///< of this rank
  int num_layers() const { return config_.text.num_layers; }
  int hidden_size() const { return config_.text.hidden_size; }
  int vocab_size() const { return config_.text.vocab_size; }

  /// Makes room for calls with at most this many rows. Errors: RESOURCE_EXHAUSTED.
  absl::Status Reserve(int max_rows);
  int max_rows() const { return max_rows_; }

  /// out [ids, hidden] fp32.
  void Embed(absl::Span<const int32_t> ids, const TensorView& out);
  /// Angles of rows whose coordinates are positions[axis][0..rows).
  void RopeAngles(const int32_t* const positions[3], const RopeTable& table);

  /// One layer over prompt rows [row_begin, row_begin + rows): hidden [rows, hidden] fp32 in place.
  /// `kv` is the layer's. Requires: rows <= max_rows; earlier rows are in the pages.
  void PrefillLayer(int layer, int row_begin, const TensorView& hidden, const RopeTable& table,
                    const PagedKv& kv, const PrefillContext& context);

  /// One layer over a whole prompt that attends to later rows (released_nsa).
  ///
  /// Shapes: hidden [rows, hidden] and gates [rows, 3 heads of the whole model] fp32, q and
  ///         attended [rows, q_size] of the attention type, all the caller's; rows is the prompt's
  ///         length
  struct WholePrompt {
    TensorView hidden;
    TensorView q;
    TensorView attended;
    TensorView gates;
    RopeTable table;
  };
  void PrefillLayerWhole(int layer, const WholePrompt& prompt, const PagedKv& kv,
                         const PrefillContext& context);

  /// One layer over one new row for each of the sequences that Backend::BeginDecode was told.
  ///
  /// Shapes: hidden [num_seqs, hidden]; the page ids of `kv` are not used
  void DecodeLayer(int layer, const TensorView& hidden, const RopeTable& table, const PagedKv& kv);

  /// Where the layers' intermediate results lie.
  const void* workspace() const { return workspace_.data(); }

  /// Final norm and head of rows of hidden states: logits [rows, vocab] fp32.
  /// Requires: rows <= kMaxLogitRows.
  void Logits(const TensorView& hidden, const TensorView& logits);
  /// Final norm alone, out F32 or BF16 (goldens).
  void FinalNorm(const TensorView& hidden, const TensorView& out);

 private:
  void Project(const DecoderLayerWeights& w, const TensorView& hidden, const RopeTable& table,
               const TensorView& normed, const TensorView& qkv);
  void BranchGates(const DecoderLayerWeights& w, const TensorView& normed, const uint8_t* is_vision,
                   const TensorView& gates);
  TensorView OwnGates(const TensorView& gates) const;
  void AddToAll(const TensorView& x, const LinearWeights& w, const TensorView& hidden);
  void GatherLogits(const TensorView& parts, const TensorView& logits);
  void Finish(const DecoderLayerWeights& w, const TensorView& attended, const TensorView& hidden);
  TensorView QueryPart(const TensorView& qkv) const;
  TensorView KeyPart(const TensorView& qkv) const;
  TensorView ValuePart(const TensorView& qkv) const;
  int qkv_size() const { return shape_.q_size() + 2 * shape_.kv_size(); }
  int num_gates() const { return 3 * config_.text.num_q_heads; }
  // First of `rows` rows from `row_begin` on that must leave the layer; `rows` if none.
  int64_t FirstFinished(int layer, const PrefillContext& context, int row_begin,
                        int64_t rows) const;
  PrefillAttentionArgs AttentionArgs(int layer, const PrefillContext& context, int row_begin,
                                     int rows);

  const ModelConfig& config_;
  const ModelShard shard_;
  const ModelWeights& weights_;
  Backend& backend_;
  const AttentionShape shape_;
  const int64_t mlp_size_;  // columns of the MLP that this rank has
  std::vector<float> frequencies_;
  std::vector<int> axes_;
  Workspace workspace_;
  int max_rows_ = 0;
  // Blocks that a call chose, for the observer.
  TensorView ChosenBlocks(const PrefillAttentionArgs& args) const;
  DeviceBuffer blocks_;
};

}  // namespace videonsa
