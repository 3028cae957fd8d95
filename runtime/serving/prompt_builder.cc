#include "runtime/serving/prompt_builder.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/engine/prefix_keys.h"

namespace videonsa {
namespace {

ChatTurn ToChatTurn(const Turn& turn, int& next_visual) {
  ChatTurn out;
  out.role = turn.role == Role::kAssistant ? ChatRole::kAssistant : ChatRole::kUser;
  for (const Part& part : turn.parts) {
    ChatPart chat_part;
    if (const auto* text = std::get_if<TextPart>(&part)) {
      chat_part.text = text->text;
    } else {
      chat_part.is_visual = true;
      chat_part.visual_idx = next_visual++;
    }
    out.parts.push_back(std::move(chat_part));
  }
  if (turn.role == Role::kAssistant) out.token_ids = turn.token_ids;
  return out;
}

// Moves visuals into the spec and the report.
void TakeVisuals(std::vector<PromptVisual> visuals, PreparedPrompt& prompt) {
  GenerateResult& result = prompt.result;
  for (size_t i = 0; i < visuals.size(); ++i) {
    PromptVisual& visual = visuals[i];
    VisualReport report = std::move(visual.visual.report);
    report.tokens = visual.visual.grid.num_tokens();
    for (const VisionSpan& span : prompt.spec.vision_spans) {
      if (span.visual_idx == static_cast<int>(i)) report.token_begin = span.token_begin;
    }
    prompt.prompt_tokens.vision += report.tokens;
    result.usage.frames_decoded += report.frames_decoded;
    result.usage.frames_used += static_cast<int64_t>(report.frame_times.size());
    result.timing.decode += visual.visual.decode_time;
    result.timing.preprocess += visual.visual.preprocess_time;
    result.visuals.push_back(std::move(report));
    if (visual.source == nullptr && visual.visual.patches != nullptr) {
      visual.source = WholePatches(std::move(visual.visual.patches));
    }
    prompt.spec.visuals.push_back(std::move(visual.source));
    prompt.spec.visual_keys.push_back(visual.key);
  }
}

}  // namespace

int CountVisuals(const GenerateRequest& request) {
  int count = 0;
  for (const Turn& turn : request.turns) {
    for (const Part& part : turn.parts) count += !std::holds_alternative<TextPart>(part);
  }
  return count;
}

absl::StatusOr<PromptLayout> PromptBuilder::LayOut(const GenerateRequest& request,
                                                   const std::vector<PromptVisual>& visuals) const {
  ChatPrompt chat;
  chat.system = request.system_instruction;
  chat.open_turn = request.open_turn;
  int next_visual = 0;
  for (const Turn& turn : request.turns) chat.turns.push_back(ToChatTurn(turn, next_visual));
  VNSA_CHECK_EQ(static_cast<size_t>(next_visual), visuals.size());
  for (const PromptVisual& visual : visuals) {
    chat.visuals.push_back(
        {visual.visual.report.image, visual.visual.grid, visual.visual.second_per_grid});
  }
  return LayOutPrompt(tokenizer_, setup_.chat, chat);
}

absl::StatusOr<std::unique_ptr<PreparedPrompt>> PromptBuilder::Build(
    const GenerateRequest& request, std::vector<PromptVisual> visuals, uint64_t random_seed) const {
  VNSA_ASSIGN_OR_RETURN(PromptLayout layout, LayOut(request, visuals));
  auto prompt = std::make_unique<PreparedPrompt>();
  SequenceSpec& spec = prompt->spec;
  spec.token_ids = std::move(layout.token_ids);
  spec.positions = std::move(layout.positions);
  spec.next_position = layout.next_position;
  spec.vision_spans = std::move(layout.vision_spans);
  const int64_t length = static_cast<int64_t>(spec.token_ids.size());
  VNSA_ASSIGN_OR_RETURN(ResolvedGeneration generation,
                        ResolveGeneration(request.generation, setup_.generation, length,
                                          setup_.info.max_context_tokens, random_seed));
  VNSA_ASSIGN_OR_RETURN(ResolvedAttention attention,
                        ResolveAttention(request.attention, request.report, setup_.info, spec));
  spec.sampling = generation.sampling;
  spec.attention = attention.settings;
  prompt->limited_by_context = generation.limited_by_context;
  prompt->forecast = std::move(attention.forecast);
  TakeVisuals(std::move(visuals), *prompt);
  prompt->prompt_tokens.text = length - prompt->prompt_tokens.vision;
  prompt->result.usage.prompt = prompt->prompt_tokens;
  prompt->result.attention = attention.effective;
  prompt->result.effective_generation = std::move(generation.effective);
  prompt->page_salt =
      std::string(BytesOf(HmacSha256(BytesOf(salts_.Of(request.tenant)), setup_.model_salt)));
  prompt->page_keys = PrefixKeys(spec, prompt->page_salt);
  prompt->result.pinnable_pages = static_cast<int>(prompt->page_keys.size());
  return prompt;
}

}  // namespace videonsa
