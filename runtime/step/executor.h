#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/api/attention_account.h"
#include "runtime/api/generate_result.h"
#include "runtime/base/hash.h"
#include "runtime/step/patch_source.h"

/// The cut between engine and device: the engine makes plans of plain numbers, the executor runs
/// them; neither includes the other.
namespace videonsa {

struct SequenceTag;
using SequenceId = StrongId<SequenceTag>;

/// Tokens per KV page, for all layers; one NSA block.
inline constexpr int kPageTokens = 64;

/// Sampling with every value decided.
struct SamplingSettings {
  int max_output_tokens = 0;
  float temperature = 0;  ///< 0 is greedy, ties to the lowest id
  float top_p = 1;
  int top_k = 0;
  float min_p = 0;
  float repetition_penalty = 1;
  uint64_t seed = 0;
  int num_logprobs = -1;      ///< -1: none; 0: the chosen token only; n: with n alternatives
  bool suppress_eos = false;  ///< stop tokens get -inf
};

/// Attention with every value decided and allowed by the checkpoint.
struct AttentionSettings {
  AttentionSemantics semantics = AttentionSemantics::kDense;
  int selected_blocks = 0;
  int window_tokens = 0;
  bool want_gates = false;
  bool want_evidence = false;
};

/// Where the features of one visual replace embeddings.
struct VisionSpan {
  int token_begin = 0;  ///< prompt index of the first pad
  int num_tokens = 0;   ///< grid.num_tokens() of visuals[visual_idx]
  int visual_idx = 0;
};

/// Everything an executor must know of a sequence before its first slice.
struct SequenceSpec {
  SequenceId id;
  std::vector<int32_t> token_ids;  ///< prompt, pads expanded
  /// M-RoPE coordinates [3][prompt length]: time, height, width.
  std::vector<int32_t> positions;
  int32_t next_position = 0;  ///< coordinate of the first generated token, all three axes
  std::vector<VisionSpan> vision_spans;
  std::vector<std::shared_ptr<PatchSource>> visuals;
  /// Content identity of each visual: equal keys mean equal patches, so the executor may reuse
  /// features it still holds. All zero: unknown, never reused. Empty or one per visual.
  std::vector<Sha256Digest> visual_keys;
  std::vector<int32_t> page_ids;  ///< enough for prompt + max_output_tokens
  int32_t cached_tokens = 0;      ///< leading prompt tokens whose pages are already filled
  /// The answer so far, of a sequence that had to leave and comes back: those tokens are not
  /// sampled again. All but the last are run again by ReplaySlices before the first decode row.
  std::vector<int32_t> answer_ids;
  SamplingSettings sampling;
  AttentionSettings attention;
  /// Polled between layers; once true the executor may skip the rest of the sequence's work.
  std::shared_ptr<const std::atomic<bool>> cancelled;
};

/// Runs the vision tower over temporal patches [t_begin, t_end) of one visual, in order, all of
/// them ready in its source. Temporal patches never attend to each other, so the cut changes
/// nothing.
struct VisionSlice {
  SequenceId sequence;
  int visual_idx = 0;
  int t_begin = 0;
  int t_end = 0;
};

/// Prefill of prompt rows [token_begin, token_end) through layers [layer_begin, layer_end).
/// `dense` and `causal_nsa`: all layers, any token range in order. `released_nsa`: all prompt
/// tokens, any layer range in order. The slice that completes the prompt's last layer samples one
/// token, unless the sequence came with an answer.
struct PrefillSlice {
  SequenceId sequence;
  int token_begin = 0;
  int token_end = 0;
  int layer_begin = 0;
  int layer_end = 0;
};

/// Runs the rows of tokens [begin, end) of SequenceSpec::answer_ids, in order from 0 to all but the
/// last, after the prompt. They are computed as the decode rows that they were, several at once:
/// a decode row depends on nothing but the rows before it, so their numbers are the same. Nothing
/// is sampled.
struct ReplaySlice {
  SequenceId sequence;
  int begin = 0;
  int end = 0;
};

/// One forward pass, as plain data. Slices of one plan belong to different sequences, except vision
/// slices, which come first.
struct StepPlan {
  uint64_t step = 0;
  std::vector<VisionSlice> vision;
  std::vector<PrefillSlice> prefill;
  std::vector<SequenceId> decode;  ///< one token each, through all layers; feeds the last sample
  std::vector<ReplaySlice> replay = {};
};

struct SampledToken {
  SequenceId sequence;
  int32_t token_id = 0;
  bool is_stop_token = false;  ///< one of the checkpoint's end tokens
  TokenLogprob logprob;        ///< set if num_logprobs >= 0
};

/// What a GPU worker holds after a step, and how it started the step's decoding; all zero on a
/// host.
struct DeviceUse {
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t other_bytes = 0;  ///< workspaces, features, hidden states
  int decode_replays = 0;   ///< decode passes started as one recorded graph
  int decode_launches = 0;  ///< decode passes started kernel by kernel
};

struct StepResult {
  uint64_t step = 0;
  std::vector<SampledToken> tokens;
  /// Sequences whose slice was skipped because `cancelled` was set.
  std::vector<SequenceId> skipped;
  /// Vision slices answered from features of an equal key, without running the tower.
  std::vector<VisionSlice> reused_vision;
  absl::Duration vision_time, prefill_time, decode_time;
  DeviceUse device;
};

/// What the engine must know of a worker's model; constant after load.
struct ExecutorInfo {
  int num_layers = 0;
  int num_q_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int hidden_size = 0;
  int vocab_size = 0;
  int64_t max_context_tokens = 0;
  AttentionSemantics semantics = AttentionSemantics::kDense;  ///< as trained
  int selected_blocks = 0;                                    ///< as trained; 0 for dense
  int window_tokens = 0;                                      ///< as trained; 0 for dense
  bool has_gates = false;
  int num_pages = 0;              ///< capacity of the KV storage
  int64_t page_bytes = 0;         ///< all layers, K and V and pooled rows
  int64_t hidden_row_bytes = 0;   ///< kept per token by layer-wise prefill
  int64_t feature_row_bytes = 0;  ///< kept per vision token until it is prefilled
  /// Attention scratch per prompt token, as trained: one sequence at a time uses it.
  int64_t scratch_row_bytes = 0;
  int gpu = -1;  ///< which GPU, as the driver counts those in view; -1: the host
};

/// Runs step plans on one device.
///
/// Owner: one worker thread calls everything but info().
/// Errors: a Status from Run means that the device is lost: no further call but the destructor.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual const ExecutorInfo& info() const = 0;
  /// Makes the sequence known. INVALID_ARGUMENT (with a reason) if the model cannot run it.
  /// Begins the sources of visuals that must be encoded and closes those that need not be.
  virtual absl::Status AddSequence(SequenceSpec spec) = 0;
  virtual absl::StatusOr<StepResult> Run(const StepPlan& plan) = 0;
  /// What the sequence spent so far. Requires: added and not released.
  virtual AttentionAccount Account(SequenceId sequence) const = 0;
  /// Forgets the sequence; its pages may be given to another at once.
  virtual void ReleaseSequence(SequenceId sequence) = 0;
};

/// What all executors of one model have: info() of equal devices, which may differ in memory.
inline ExecutorInfo CommonInfo(const std::vector<std::unique_ptr<Executor>>& executors) {
  ExecutorInfo info = executors.front()->info();
  for (const auto& executor : executors) {
    info.num_pages = std::min(info.num_pages, executor->info().num_pages);
    info.max_context_tokens =
        std::min(info.max_context_tokens, executor->info().max_context_tokens);
  }
  return info;
}

}  // namespace videonsa
