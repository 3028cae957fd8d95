#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/step/executor.h"
#include "runtime/step/patch_batch.h"

namespace videonsa {

class Tokenizer;

/// Size and kind of one visual, in prompt order.
struct VisualShape {
  bool image = false;
  PatchGrid grid;
  double second_per_grid = 1.0;
};

/// A conversation whose visuals are already known by shape. Text is plain: it never becomes a
/// control token.
struct ChatPart {
  bool is_visual = false;
  int visual_idx = 0;  ///< if is_visual
  std::string text;    ///< if not
};
enum class ChatRole { kUser, kAssistant, kSystem };
struct ChatTurn {
  ChatRole role = ChatRole::kUser;
  std::vector<ChatPart> parts;
  /// Stand in place of the parts if there are any and none is a control token of visuals.
  std::vector<int32_t> token_ids;
};
struct ChatPrompt {
  /// Empty: the model's default, unless the first turn is a system turn.
  std::string system;
  std::vector<ChatTurn> turns;
  std::vector<VisualShape> visuals;  ///< each is used by exactly one part, in order
  bool generation_prompt = true;     ///< ends with the head of an assistant turn
  bool open_turn = false;            ///< ends inside the last turn, whatever generation_prompt says
  bool number_visuals = false;       ///< writes "Picture 1: ", "Video 1: " before visuals
};

/// Control ids and position step of a checkpoint (chat_config.h reads them).
struct ChatTokens {
  int32_t im_start = 0, im_end = 0, vision_start = 0, vision_end = 0;
  int32_t image_pad = 0, video_pad = 0;
  int tokens_per_second = 2;
  std::string default_system = "You are a helpful assistant.";
};

/// Token ids with the places of vision features and M-RoPE positions.
struct PromptLayout {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> positions;  ///< [3][token_ids.size()]: time, height, width
  int32_t next_position = 0;       ///< coordinate of the first generated token
  std::vector<VisionSpan> vision_spans;
};

/// Renders `prompt` with the chat template as token ids.
///
/// Shapes:  the result's positions [3][num_tokens]; vision_spans in prompt order, one a visual.
/// Errors:  INVALID_ARGUMENT (FIELD_INVALID) for invalid UTF-8, no turn, a visual that is out of
///          range, out of order, used twice or not at all, a grid that is not even or too large.
/// Source:  preprocess-and-model sections 3 and 6.1.
absl::StatusOr<PromptLayout> LayOutPrompt(const Tokenizer& tokenizer, const ChatTokens& tokens,
                                          const ChatPrompt& prompt);

/// Finds the pads of `visuals` in ready token ids: every visual is a run of exactly
/// grid.num_tokens() pads of its kind between vision_start and vision_end, and no other vision id
/// occurs anywhere.
///
/// Errors: INVALID_ARGUMENT (FIELD_INVALID) for everything else, with the index at fault.
absl::StatusOr<std::vector<VisionSpan>> FindVisionSpans(absl::Span<const int32_t> token_ids,
                                                        const ChatTokens& tokens,
                                                        absl::Span<const VisualShape> visuals);

/// Fills the M-RoPE positions and next position of a layout whose other fields are set.
///
/// Errors: INVALID_ARGUMENT if a coordinate would leave int32.
/// Source: preprocess-and-model section 6.1; the time step is truncated before it is multiplied.
absl::Status AssignPositions(int tokens_per_second, absl::Span<const VisualShape> visuals,
                             PromptLayout& layout);

}  // namespace videonsa
