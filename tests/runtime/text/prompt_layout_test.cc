#include "runtime/text/prompt_layout.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/text/chat_config.h"
#include "tests/runtime/text/test_tokenizer.h"

namespace videonsa {
namespace {

using ::testing::HasSubstr;

const ChatTokens& Tokens() {
  static const ChatTokens tokens = ReadChatConfig(TextDataPath("small"), SmallTokenizer())->tokens;
  return tokens;
}

ChatPart Text(const std::string& text) { return {.text = text}; }
ChatPart Visual(int idx) { return {.is_visual = true, .visual_idx = idx}; }

absl::StatusOr<PromptLayout> LayOut(const ChatPrompt& prompt) {
  return LayOutPrompt(SmallTokenizer(), Tokens(), prompt);
}

std::string Rendered(const ChatPrompt& prompt) {
  const auto layout = LayOut(prompt);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return SmallTokenizer().Decode(layout->token_ids, /*keep_special=*/true);
}

TEST(PromptLayoutTest, WritesTheTemplate) {
  ChatPrompt prompt;
  prompt.turns = {{.parts = {Text("Look: "), Visual(0), Text("\n"), Visual(1), Text("what?")}},
                  {.role = ChatRole::kAssistant, .parts = {Text("A cat.")}},
                  {.parts = {Text("Sure?")}}};
  prompt.visuals = {{.image = true, .grid = {1, 2, 2}}, {.image = false, .grid = {2, 2, 2}}};
  const std::string body =
      "<|im_start|>user\nLook: <|vision_start|><|image_pad|><|vision_end|>\n<|vision_start|>"
      "<|video_pad|><|video_pad|><|vision_end|>what?<|im_end|>\n<|im_start|>assistant\nA cat."
      "<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n";
  const std::string system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n";
  EXPECT_EQ(Rendered(prompt), system + body + "<|im_start|>assistant\n");
  prompt.generation_prompt = false;
  EXPECT_EQ(Rendered(prompt), system + body);
  prompt.system = "Be brief.";
  EXPECT_EQ(Rendered(prompt), "<|im_start|>system\nBe brief.<|im_end|>\n" + body);
  prompt.number_visuals = true;
  EXPECT_THAT(Rendered(prompt), HasSubstr("Look: Picture 1: <|vision_start|>"));
  EXPECT_THAT(Rendered(prompt), HasSubstr("\nVideo 1: <|vision_start|>"));
  prompt.system.clear();
  prompt.turns.insert(prompt.turns.begin(), ChatTurn{.role = ChatRole::kSystem});
  EXPECT_THAT(Rendered(prompt),
              ::testing::StartsWith("<|im_start|>system\n<|im_end|>\n<|im_start|>user"));
}

TEST(PromptLayoutTest, RefusesBadPrompts) {
  const VisualShape video{.grid = {2, 4, 4}};
  const auto refused = [](const ChatPrompt& prompt, const std::string& part) {
    const auto layout = LayOut(prompt);
    EXPECT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument) << layout.status();
    EXPECT_EQ(ReasonOf(layout.status()), "FIELD_INVALID");
    EXPECT_THAT(std::string(layout.status().message()), HasSubstr(part));
  };
  const auto with = [&](std::vector<ChatPart> parts, std::vector<VisualShape> visuals) {
    ChatPrompt prompt;
    prompt.turns = {{.parts = std::move(parts)}};
    prompt.visuals = std::move(visuals);
    return prompt;
  };
  refused(ChatPrompt(), "none given");
  refused(with({Text("a\xFF")}, {}), "byte 1");
  ChatPrompt bad_system = with({Text("a")}, {});
  bad_system.system = "\xC0";
  refused(bad_system, "byte 0");
  refused(with({Visual(0)}, {}), "visual 0");
  refused(with({Visual(-1)}, {video}), "visual -1");
  refused(with({Visual(0), Visual(0)}, {video}), "visual 0, expected 1");
  refused(with({Visual(1), Visual(0)}, {video, video}), "visual 1, expected 0");
  refused(with({Visual(0)}, {video, video}), "2 given, 1 used");
  refused(with({Visual(0)}, {{.grid = {2, 3, 4}}}), "2x3x4");
  refused(with({Visual(0)}, {{.grid = {0, 4, 4}}}), "0x4x4");
  refused(with({Visual(0)}, {{.grid = {1 << 16, 1 << 16, 1 << 16}}}), "limit");
  refused(with({Visual(0)}, {{.image = true, .grid = {2, 4, 4}}}), "2 temporal");
  refused(with({Visual(0)}, {{.grid = {2, 4, 4}, .second_per_grid = -1}}), "second");
  refused(with({Visual(0)}, {{.grid = {2, 4, 4}, .second_per_grid = std::nan("")}}), "second");
  refused(with({Visual(0)}, {{.grid = {9, 4, 4}, .second_per_grid = 1 << 29}}), "time index");
}

// Positions as the reference computes them from ids alone: walk, look at the next pad, use the
// next grid of its kind.
std::vector<int32_t> SlowPositions(const std::vector<int32_t>& ids, const ChatTokens& tokens,
                                   const std::vector<VisualShape>& visuals, int32_t& next) {
  std::vector<std::array<int32_t, 3>> rows;
  std::vector<size_t> used(2, 0);
  next = 0;
  for (size_t i = 0; i < ids.size();) {
    const bool image = ids[i] == tokens.image_pad;
    if (!image && ids[i] != tokens.video_pad) {
      rows.push_back({next, next, next});
      ++next;
      ++i;
      continue;
    }
    size_t of_kind = used[image]++;
    const VisualShape* shape = nullptr;
    for (const VisualShape& visual : visuals) {
      if (visual.image == image && of_kind-- == 0) shape = &visual;
    }
    const int32_t first = next;
    const int32_t seconds = image ? 0 : static_cast<int32_t>(std::trunc(shape->second_per_grid));
    for (int32_t k = 0; k < shape->grid.num_tokens(); ++k, ++i) {
      const int32_t width = shape->grid.w / 2, area = width * (shape->grid.h / 2);
      const std::array<int32_t, 3> row = {first + k / area * seconds * tokens.tokens_per_second,
                                          first + k % area / width, first + k % width};
      rows.push_back(row);
      for (const int32_t coordinate : row) next = std::max(next, coordinate + 1);
    }
  }
  std::vector<int32_t> positions;
  for (int axis = 0; axis < 3; ++axis) {
    for (const auto& row : rows) positions.push_back(row[axis]);
  }
  return positions;
}

std::string RandomText(std::mt19937& random) {
  static const std::vector<std::string> pieces = {"<|im_end|>",
                                                  "<|im_start|>system\n",
                                                  "<|video_pad|>",
                                                  "<|vision_start|>",
                                                  "<|image_pad|>",
                                                  "<|vision_end|>",
                                                  "<|endoftext|>",
                                                  "the ",
                                                  "\n",
                                                  " ",
                                                  "",
                                                  "\xE4\xB8\xAD",
                                                  "Picture 1: "};
  std::string text;
  for (int i = static_cast<int>(random() % 5); i > 0; --i) text += pieces[random() % pieces.size()];
  return text;
}

ChatPrompt RandomPrompt(std::mt19937& random) {
  ChatPrompt prompt;
  prompt.system = RandomText(random);
  prompt.number_visuals = random() % 4 == 0;
  for (int turn = 1 + static_cast<int>(random() % 4); turn > 0; --turn) {
    ChatTurn& last = prompt.turns.emplace_back();
    last.role = turn % 2 == 1 ? ChatRole::kUser : ChatRole::kAssistant;
    for (int part = static_cast<int>(random() % 5); part > 0; --part) {
      if (random() % 2 == 0) {
        last.parts.push_back(Text(RandomText(random)));
        continue;
      }
      last.parts.push_back(Visual(static_cast<int>(prompt.visuals.size())));
      VisualShape& shape = prompt.visuals.emplace_back();
      const auto side = [&random] { return 2 * (1 + static_cast<int>(random() % 4)); };
      shape.image = random() % 2 == 0;
      shape.grid = {shape.image ? 1 : 1 + static_cast<int>(random() % 5), side(), side()};
      shape.second_per_grid = 0.25 * static_cast<double>(random() % 17);
    }
  }
  return prompt;
}

TEST(PromptLayoutTest, RandomPromptsHoldTheInvariants) {
  std::mt19937 random(6);
  for (int round = 0; round < 2000; ++round) {
    const ChatPrompt prompt = RandomPrompt(random);
    const auto layout = LayOut(prompt);
    ASSERT_TRUE(layout.ok()) << layout.status();
    const std::vector<int32_t>& ids = layout->token_ids;
    // Control tokens are ours alone, however the texts look.
    const auto count = [&ids](int32_t id) {
      return static_cast<size_t>(std::count(ids.begin(), ids.end(), id));
    };
    size_t image_pads = 0, video_pads = 0;
    for (const VisualShape& visual : prompt.visuals) {
      (visual.image ? image_pads : video_pads) += visual.grid.num_tokens();
    }
    ASSERT_EQ(count(Tokens().im_start), prompt.turns.size() + 2);
    ASSERT_EQ(count(Tokens().im_end), prompt.turns.size() + 1);
    ASSERT_EQ(count(Tokens().vision_start), prompt.visuals.size());
    ASSERT_EQ(count(Tokens().vision_end), prompt.visuals.size());
    ASSERT_EQ(count(Tokens().image_pad), image_pads);
    ASSERT_EQ(count(Tokens().video_pad), video_pads);
    ASSERT_EQ(count(*SmallTokenizer().AddedTokenId("<|endoftext|>")), 0u);
    ASSERT_EQ(layout->vision_spans.size(), prompt.visuals.size());
    for (size_t i = 0; i < prompt.visuals.size(); ++i) {
      const VisionSpan& span = layout->vision_spans[i];
      ASSERT_EQ(span.visual_idx, static_cast<int>(i));
      ASSERT_EQ(span.num_tokens, prompt.visuals[i].grid.num_tokens());
      ASSERT_EQ(ids[span.token_begin - 1], Tokens().vision_start);
      ASSERT_EQ(ids[span.token_begin + span.num_tokens], Tokens().vision_end);
    }
    int32_t next = 0;
    ASSERT_EQ(layout->positions, SlowPositions(ids, Tokens(), prompt.visuals, next));
    ASSERT_EQ(layout->next_position, next);
  }
}

TEST(PromptLayoutTest, RefusesIdsThatDoNotFitTheVisuals) {
  const ChatTokens& t = Tokens();
  const std::vector<VisualShape> one = {{.image = false, .grid = {1, 2, 4}}};
  const std::vector<int32_t> good = {1, t.vision_start, t.video_pad, t.video_pad, t.vision_end, 2};
  ASSERT_TRUE(FindVisionSpans(good, t, one).ok());
  EXPECT_FALSE(FindVisionSpans(good, t, {}).ok());
  EXPECT_FALSE(FindVisionSpans({}, t, one).ok());
  for (size_t i = 1; i < 5; ++i) {
    for (const int32_t other : {7, t.image_pad, t.video_pad, t.vision_start, t.vision_end}) {
      std::vector<int32_t> bad = good;
      if (bad[i] == other) continue;
      bad[i] = other;
      EXPECT_FALSE(FindVisionSpans(bad, t, one).ok()) << i << " " << other;
    }
    EXPECT_FALSE(FindVisionSpans(absl::MakeSpan(good).subspan(0, i), t, one).ok()) << i;
  }
  std::vector<int32_t> stray = good;
  stray.push_back(t.video_pad);
  EXPECT_FALSE(FindVisionSpans(stray, t, one).ok());
}

}  // namespace
}  // namespace videonsa
