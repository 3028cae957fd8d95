#include "runtime/text/prompt_layout.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/status_macros.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8.h"

namespace videonsa {
namespace {

// More than any context; keeps every product below in range.
constexpr int64_t kMaxLayoutTokens = int64_t{1} << 24;
constexpr double kMaxSecondPerGrid = 1 << 30;

const char* RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kUser:
      return "user";
    case ChatRole::kAssistant:
      return "assistant";
    case ChatRole::kSystem:
      return "system";
  }
  VNSA_CHECK(false) << static_cast<int>(role);
  return "";
}

absl::Status CheckVisuals(absl::Span<const VisualShape> visuals) {
  int64_t total = 0;
  for (size_t i = 0; i < visuals.size(); ++i) {
    const PatchGrid& grid = visuals[i].grid;
    const auto error = [&](absl::string_view problem) {
      return InvalidField(absl::StrCat("visuals[", i, "]"), problem);
    };
    const auto bad_side = [](int side) { return side < 2 || side % 2 != 0 || side > 1 << 16; };
    if (grid.t < 1 || grid.t > 1 << 16 || bad_side(grid.h) || bad_side(grid.w)) {
      return error(absl::StrCat("grid ", grid.t, "x", grid.h, "x", grid.w,
                                ": sides must be even and in 2..65536, times in 1..65536"));
    }
    if (visuals[i].image && grid.t != 1) {
      return error(absl::StrCat("a picture of ", grid.t, " temporal patches"));
    }
    const double seconds = visuals[i].second_per_grid;
    if (!(seconds >= 0 && seconds <= kMaxSecondPerGrid)) {
      return error(absl::StrCat(seconds, " seconds a temporal patch, limit ", kMaxSecondPerGrid));
    }
    total += grid.num_tokens();
    if (total > kMaxLayoutTokens) {
      return error(absl::StrCat(total, " tokens up to here, limit ", kMaxLayoutTokens));
    }
  }
  return absl::OkStatus();
}

// Writes token ids. Text is collected until a control token comes, because the reference tokenises
// everything between two control tokens as one text.
class Renderer {
 public:
  Renderer(const Tokenizer& tokenizer, const ChatTokens& tokens, const ChatPrompt& prompt)
      : tokenizer_(tokenizer), tokens_(tokens), prompt_(prompt) {}

  absl::StatusOr<std::vector<int32_t>> Render() {
    const bool own_system = !prompt_.turns.empty() && prompt_.turns[0].role == ChatRole::kSystem;
    if (!prompt_.system.empty() || !own_system) {
      const std::string& system = prompt_.system.empty() ? tokens_.default_system : prompt_.system;
      VNSA_RETURN_IF_ERROR(CheckText("system", system));
      VNSA_RETURN_IF_ERROR(Control(tokens_.im_start));
      absl::StrAppend(&text_, "system\n", system);
      VNSA_RETURN_IF_ERROR(EndTurn());
    }
    for (size_t turn = 0; turn < prompt_.turns.size(); ++turn) {
      VNSA_RETURN_IF_ERROR(RenderTurn(turn));
    }
    if (next_visual_ != prompt_.visuals.size()) {
      return InvalidField("visuals", absl::StrCat(prompt_.visuals.size(), " given, ", next_visual_,
                                                  " used by the turns"));
    }
    if (prompt_.generation_prompt && !prompt_.open_turn) {
      VNSA_RETURN_IF_ERROR(Control(tokens_.im_start));
      absl::StrAppend(&text_, "assistant\n");
    }
    VNSA_RETURN_IF_ERROR(FlushText());
    return std::move(ids_);
  }

 private:
  static absl::Status CheckText(absl::string_view field, absl::string_view text) {
    const size_t invalid = FindInvalidUtf8(text);
    if (invalid == absl::string_view::npos) return absl::OkStatus();
    return InvalidField(field, absl::StrCat("invalid UTF-8 at byte ", invalid));
  }

  absl::Status FlushText() {
    if (text_.empty()) return absl::OkStatus();
    VNSA_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer_.Encode(text_));
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    text_.clear();
    return absl::OkStatus();
  }

  absl::Status Control(int32_t id) {
    VNSA_RETURN_IF_ERROR(FlushText());
    ids_.push_back(id);
    return absl::OkStatus();
  }

  absl::Status EndTurn() {
    VNSA_RETURN_IF_ERROR(Control(tokens_.im_end));
    text_ = "\n";
    return absl::OkStatus();
  }

  absl::Status RenderTurn(size_t turn_idx) {
    const ChatTurn& turn = prompt_.turns[turn_idx];
    VNSA_RETURN_IF_ERROR(Control(tokens_.im_start));
    absl::StrAppend(&text_, RoleName(turn.role), "\n");
    if (StandsAsIds(turn)) {
      VNSA_RETURN_IF_ERROR(FlushText());
      ids_.insert(ids_.end(), turn.token_ids.begin(), turn.token_ids.end());
      return EndTurn();
    }
    for (size_t i = 0; i < turn.parts.size(); ++i) {
      const ChatPart& part = turn.parts[i];
      const std::string field = absl::StrCat("turns[", turn_idx, "].parts[", i, "]");
      if (part.is_visual) {
        VNSA_RETURN_IF_ERROR(RenderVisual(field, part.visual_idx));
      } else {
        VNSA_RETURN_IF_ERROR(CheckText(field, part.text));
        text_ += part.text;
      }
    }
    if (prompt_.open_turn && turn_idx + 1 == prompt_.turns.size()) return absl::OkStatus();
    return EndTurn();
  }

  // A model may generate anything; pads in a prompt belong to visuals alone.
  bool StandsAsIds(const ChatTurn& turn) const {
    const auto marks_visual = [this](int32_t id) {
      return id == tokens_.vision_start || id == tokens_.vision_end || id == tokens_.image_pad ||
             id == tokens_.video_pad;
    };
    return !turn.token_ids.empty() &&
           std::none_of(turn.token_ids.begin(), turn.token_ids.end(), marks_visual);
  }

  absl::Status RenderVisual(const std::string& field, int visual_idx) {
    if (visual_idx < 0 || static_cast<size_t>(visual_idx) >= prompt_.visuals.size() ||
        static_cast<size_t>(visual_idx) != next_visual_) {
      return InvalidField(field, absl::StrCat("visual ", visual_idx, ", expected ", next_visual_,
                                              " of ", prompt_.visuals.size()));
    }
    const VisualShape& visual = prompt_.visuals[next_visual_++];
    int& number = visual.image ? num_images_ : num_videos_;
    ++number;
    if (prompt_.number_visuals) {
      absl::StrAppend(&text_, visual.image ? "Picture " : "Video ", number, ": ");
    }
    VNSA_RETURN_IF_ERROR(Control(tokens_.vision_start));
    ids_.insert(ids_.end(), visual.grid.num_tokens(),
                visual.image ? tokens_.image_pad : tokens_.video_pad);
    ids_.push_back(tokens_.vision_end);
    return absl::OkStatus();
  }

  const Tokenizer& tokenizer_;
  const ChatTokens& tokens_;
  const ChatPrompt& prompt_;
  std::vector<int32_t> ids_;
  std::string text_;  // not yet tokenised
  size_t next_visual_ = 0;
  int num_images_ = 0, num_videos_ = 0;
};

}  // namespace

absl::StatusOr<PromptLayout> LayOutPrompt(const Tokenizer& tokenizer, const ChatTokens& tokens,
                                          const ChatPrompt& prompt) {
  if (prompt.turns.empty()) return InvalidField("turns", "none given");
  VNSA_RETURN_IF_ERROR(CheckVisuals(prompt.visuals));
  PromptLayout layout;
  VNSA_ASSIGN_OR_RETURN(layout.token_ids, Renderer(tokenizer, tokens, prompt).Render());
  // Read back from the ids: nothing but our own pads may look like one.
  VNSA_ASSIGN_OR_RETURN(layout.vision_spans,
                        FindVisionSpans(layout.token_ids, tokens, prompt.visuals));
  VNSA_RETURN_IF_ERROR(AssignPositions(tokens.tokens_per_second, prompt.visuals, layout));
  return layout;
}

absl::StatusOr<std::vector<VisionSpan>> FindVisionSpans(absl::Span<const int32_t> token_ids,
                                                        const ChatTokens& tokens,
                                                        absl::Span<const VisualShape> visuals) {
  VNSA_RETURN_IF_ERROR(CheckVisuals(visuals));
  const auto error = [](size_t at, absl::string_view problem) {
    return InvalidField(absl::StrCat("token_ids[", at, "]"), problem);
  };
  std::vector<VisionSpan> spans;
  size_t i = 0;
  while (i < token_ids.size()) {
    const int32_t id = token_ids[i];
    if (id == tokens.image_pad || id == tokens.video_pad || id == tokens.vision_end) {
      return error(i, absl::StrCat("vision token ", id, " outside of a visual"));
    }
    if (id != tokens.vision_start) {
      ++i;
      continue;
    }
    if (spans.size() == visuals.size()) {
      return error(i, absl::StrCat("more than the ", visuals.size(), " visuals given"));
    }
    const VisualShape& visual = visuals[spans.size()];
    const int32_t pad = visual.image ? tokens.image_pad : tokens.video_pad;
    const size_t begin = i + 1;
    size_t end = begin;
    while (end < token_ids.size() && token_ids[end] == pad) ++end;
    if (end - begin != static_cast<size_t>(visual.grid.num_tokens()) || end == token_ids.size() ||
        token_ids[end] != tokens.vision_end) {
      return error(i, absl::StrCat("visual ", spans.size(), " has ", end - begin,
                                   " pads, expected ", visual.grid.num_tokens(), " and an end"));
    }
    spans.push_back({.token_begin = static_cast<int>(begin),
                     .num_tokens = static_cast<int>(end - begin),
                     .visual_idx = static_cast<int>(spans.size())});
    i = end + 1;
  }
  if (spans.size() != visuals.size()) {
    return InvalidField("token_ids",
                        absl::StrCat(spans.size(), " visuals, expected ", visuals.size()));
  }
  return spans;
}

absl::Status AssignPositions(int tokens_per_second, absl::Span<const VisualShape> visuals,
                             PromptLayout& layout) {
  const size_t num_tokens = layout.token_ids.size();
  layout.positions.resize(3 * num_tokens);
  int32_t* const time = layout.positions.data();
  int32_t* const row = time + num_tokens;
  int32_t* const column = row + num_tokens;
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  int64_t next = 0;  // position of the next text token
  size_t token = 0;
  const auto text_until = [&](size_t end) {
    for (; token < end; ++token, ++next) {
      time[token] = row[token] = column[token] = static_cast<int32_t>(next);
    }
  };
  for (const VisionSpan& span : layout.vision_spans) {
    const VisualShape& visual = visuals[span.visual_idx];
    const int64_t step =
        visual.image ? 0 : static_cast<int64_t>(visual.second_per_grid) * tokens_per_second;
    const int64_t height = visual.grid.h / 2, width = visual.grid.w / 2;
    text_until(span.token_begin);
    const int64_t after = next + std::max({(visual.grid.t - 1) * step + 1, height, width});
    if (after > kMax - static_cast<int64_t>(num_tokens)) {
      return InvalidField(absl::StrCat("visuals[", span.visual_idx, "]"),
                          absl::StrCat("last time index ", after, ", limit ", kMax));
    }
    for (int64_t t = 0; t < visual.grid.t; ++t) {
      for (int64_t r = 0; r < height; ++r) {
        for (int64_t c = 0; c < width; ++c, ++token) {
          time[token] = static_cast<int32_t>(next + t * step);
          row[token] = static_cast<int32_t>(next + r);
          column[token] = static_cast<int32_t>(next + c);
        }
      }
    }
    VNSA_CHECK_EQ(token, static_cast<size_t>(span.token_begin + span.num_tokens));
    next = after;
  }
  text_until(num_tokens);
  layout.next_position = static_cast<int32_t>(next);
  return absl::OkStatus();
}

}  // namespace videonsa
