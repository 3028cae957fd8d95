#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
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
struct ChatTurn {
  bool assistant = false;
  std::vector<ChatPart> parts;
};
struct ChatPrompt {
  std::string system;  ///< empty: the model's default
  std::vector<ChatTurn> turns;
  std::vector<VisualShape> visuals;
};

/// Control ids and position step of a checkpoint (config.json, tokenizer.json).
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

/// Renders `prompt` with the chat template as token ids, generation prompt included.
/// Errors: INVALID_ARGUMENT for invalid UTF-8, a visual index out of range or used twice.
/// Source: preprocess-and-model sections 3 and 6.1.
absl::StatusOr<PromptLayout> LayOutPrompt(const Tokenizer& tokenizer, const ChatTokens& tokens,
                                          const ChatPrompt& prompt);

}  // namespace videonsa
