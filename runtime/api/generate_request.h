#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/hash.h"
#include "runtime/base/strong_id.h"

/// What a caller asked for, validated and immutable. No protobuf here: `server` converts.
namespace videonsa {

struct RequestTag;
/// One question, for the life of the process.
using RequestId = StrongId<RequestTag>;

/// Bytes of a clip or picture: exactly one of the two is set.
struct MediaSource {
  /// A committed file of the clip store. The file stays open-able while the request lives.
  std::string path;
  /// Bytes sent inside the request; shared, never copied.
  std::shared_ptr<const std::string> bytes;
  /// SHA-256 of the bytes: the identity under which features and pages may be reused.
  Sha256Digest sha256{};
};

/// Which published pipeline decides frames, resizes and time steps
/// (preprocess-and-model: sections 1 and 2).
enum class PreprocessMode { kLmmsEval, kQwenVlUtils };

/// How a clip becomes frames. `fps` and `num_frames` exclude each other; both unset means the
/// model's default rate.
struct VideoSampling {
  std::optional<double> fps;                  ///< frames per second of clip time, > 0
  std::optional<int> num_frames;              ///< >= 2
  std::optional<int> max_frames;              ///< with fps; >= 2
  std::optional<int64_t> min_pixels;          ///< per frame after resize
  std::optional<int64_t> max_pixels;          ///< per frame after resize
  std::optional<absl::Duration> range_begin;  ///< first instant used
  std::optional<absl::Duration> range_end;    ///< one past the last instant used
  std::optional<PreprocessMode> mode;         ///< unset: the server's default
};

struct TextPart {
  std::string text;  ///< valid UTF-8; never parsed for control tokens
};
struct VideoPart {
  MediaSource source;
  VideoSampling sampling;
};
struct ImagePart {
  MediaSource source;
  std::optional<int64_t> min_pixels;
  std::optional<int64_t> max_pixels;
  std::optional<PreprocessMode> mode;
};
using Part = std::variant<TextPart, VideoPart, ImagePart>;

enum class Role { kUser, kAssistant };

struct Turn {
  Role role = Role::kUser;
  std::vector<Part> parts;
  /// Assistant turns only: the ids that were generated. They stand in the prompt in place of the
  /// parts, whose text need not encode to the same ids.
  std::vector<int32_t> token_ids;
};

struct SessionTag;
/// One session, for the life of the process.
using SessionId = StrongId<SessionTag>;

/// Pages that stay in KV memory beyond their requests, for those that follow; shared by whoever
/// owns the session and the engine. They make answers faster, never different: the engine takes
/// them away when a request could not run beside them, and they go with a worker that fails.
///
/// Threads: any.
struct SessionPin {
  explicit SessionPin(SessionId session) : id(session) {}
  const SessionId id;
  std::atomic<int> pages{0};        ///< held now; written by the engine
  std::atomic<bool> closed{false};  ///< set before Runtime::Unpin: nothing is held from now on
};

/// Sampling of the answer. Unset fields take the checkpoint's generation_config, then the server's
/// defaults.
struct GenerationParams {
  std::optional<int> max_output_tokens;
  std::optional<float> temperature;         ///< 0 is greedy
  std::optional<float> top_p;               ///< (0, 1]
  std::optional<int> top_k;                 ///< 0 is off
  std::optional<float> min_p;               ///< [0, 1), 0 is off
  std::optional<float> repetition_penalty;  ///< > 0, 1 is off; counts prompt ids, pads included
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  int top_logprobs = 0;  ///< 0..20
  bool want_logprobs = false;
  bool ignore_eos = false;
};

/// Attention to run over vision rows (attention.md).
enum class AttentionSemantics {
  kDense,
  kCausalNsa,
  kReleasedNsa,
  kTriShape,
  kMInference,
  kFlexPrefill,
  kXAttention,
};

/// Lower-case name as used in config.json, flags, metrics and reports: "dense", "causal_nsa", ...
const char* SemanticsName(AttentionSemantics semantics);
/// NSA in one of its two forms: needs gates that were trained.
bool IsNativeSparse(AttentionSemantics semantics);
/// A fixed pattern in place of dense attention: needs a checkpoint that was trained dense.
bool IsTrainingFree(AttentionSemantics semantics);
/// Needs all prompt rows at once in every layer: such a prompt is prefilled layer by layer and
/// shares no pages.
bool NeedsWholePrompt(AttentionSemantics semantics);

/// Attention controls of a request; unset means as the checkpoint was trained.
struct AttentionParams {
  std::optional<AttentionSemantics> semantics;
  std::optional<int> selected_blocks;
  std::optional<int> window_tokens;
  std::optional<double> max_budget_fraction;  ///< (0, 1]
};

struct ReportParams {
  bool per_layer_attention = false;
  bool evidence = false;  ///< selection weight by block, attended intervals
  bool gates = false;
};

enum class Priority { kBatch, kStandard, kInteractive };

struct GenerateRequest {
  std::string tenant;              ///< never empty; "default" without authentication
  std::string request_id;          ///< for logs only
  std::string system_instruction;  ///< empty: the model's default
  std::vector<Turn> turns;         ///< at least one, last one is the user's
  GenerationParams generation;
  AttentionParams attention;
  ReportParams report;
  Priority priority = Priority::kStandard;
  /// The prompt ends inside the last turn, which later requests go on with: nothing is answered.
  bool open_turn = false;
  /// Full pages of prompt and answer are kept under this; null: no longer than the cache does.
  std::shared_ptr<SessionPin> pin;
  /// With `pin`: refuse what the ceilings on kept pages do not let in, before anything is run.
  bool must_pin = false;
  /// Rows or features of the clips are probably held: decode a clip only if they are not.
  bool expects_reuse = false;
  /// Monotonic clock reading at which the request stops; infinite if none.
  absl::Duration deadline = absl::InfiniteDuration();
};

}  // namespace videonsa
