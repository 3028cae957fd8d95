#include "client/cli/question_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace videonsa::client {
namespace {

using ::testing::HasSubstr;

ParsedArgs Parse(std::vector<std::string> words) {
  CommandSpec spec;
  spec.name = "ask";
  spec.groups = QuestionFlags();
  spec.max_arguments = -1;
  const auto args = ParseArgs(spec, words);
  EXPECT_TRUE(args.ok()) << args.status();
  return *args;
}

TEST(QuestionFlags, EveryFlagReachesTheQuestion) {
  const ParsedArgs args = Parse({"-q",
                                 "Why?",
                                 "--system",
                                 "Be brief.",
                                 "--turn",
                                 "user: Who?",
                                 "--turn",
                                 "assistant: A cook.",
                                 "--attention",
                                 "minference",
                                 "--selected-blocks",
                                 "8",
                                 "--window",
                                 "128",
                                 "--max-budget",
                                 "0.25",
                                 "--max-tokens",
                                 "64",
                                 "--temperature",
                                 "0.5",
                                 "--top-p",
                                 "0.9",
                                 "--top-k",
                                 "40",
                                 "--min-p",
                                 "0.05",
                                 "--seed",
                                 "7",
                                 "--stop",
                                 "END",
                                 "--stop",
                                 "\n",
                                 "--repetition-penalty",
                                 "1.1",
                                 "--logprobs",
                                 "3",
                                 "--priority",
                                 "interactive"});
  const auto question = QuestionOf(args);
  ASSERT_TRUE(question.ok()) << question.status();
  EXPECT_EQ(question->system_instruction(), "Be brief.");
  ASSERT_EQ(question->turns_size(), 3);
  EXPECT_EQ(question->turns(0).parts(0).text(), "Who?");
  EXPECT_EQ(question->turns(1).role(), proto::Turn::ROLE_ASSISTANT);
  EXPECT_EQ(question->turns(2).parts(0).text(), "Why?");
  EXPECT_EQ(question->attention().mode(), proto::AttentionConfig::MODE_MINFERENCE);
  EXPECT_EQ(question->attention().selected_blocks(), 8);
  EXPECT_EQ(question->attention().window_tokens(), 128);
  EXPECT_EQ(question->attention().max_budget_fraction(), 0.25);
  const proto::GenerationConfig& generation = question->generation();
  EXPECT_EQ(generation.max_output_tokens(), 64);
  EXPECT_FLOAT_EQ(generation.temperature(), 0.5f);
  EXPECT_FLOAT_EQ(generation.top_p(), 0.9f);
  EXPECT_EQ(generation.top_k(), 40);
  EXPECT_FLOAT_EQ(generation.min_p(), 0.05f);
  EXPECT_EQ(generation.seed(), 7u);
  EXPECT_EQ(generation.stop_size(), 2);
  EXPECT_FLOAT_EQ(generation.repetition_penalty(), 1.1f);
  EXPECT_EQ(generation.top_logprobs(), 3);
  EXPECT_EQ(question->priority(), proto::PRIORITY_INTERACTIVE);
}

TEST(QuestionFlags, UnsetStaysUnset) {
  const auto question = QuestionOf(Parse({"-q", "Why?"}));
  ASSERT_TRUE(question.ok());
  EXPECT_FALSE(question->generation().has_temperature());
  EXPECT_FALSE(question->generation().has_max_output_tokens());
  EXPECT_FALSE(question->attention().has_selected_blocks());
  EXPECT_EQ(question->attention().mode(), proto::AttentionConfig::MODE_UNSPECIFIED);
}

TEST(QuestionFlags, SamplingOfClips) {
  const auto sampling =
      SamplingOf(Parse({"--fps", "2", "--max-frames", "64", "--max-pixels", "50176", "--min-pixels",
                        "784", "--range", "10s-1:30", "--mode", "qwen_vl_utils"}));
  ASSERT_TRUE(sampling.ok()) << sampling.status();
  EXPECT_EQ(sampling->fps(), 2);
  EXPECT_EQ(sampling->max_frames(), 64);
  EXPECT_EQ(sampling->max_pixels_per_frame(), 50176);
  EXPECT_EQ(sampling->min_pixels_per_frame(), 784);
  EXPECT_EQ(sampling->range().start_offset().seconds(), 10);
  EXPECT_EQ(sampling->range().end_offset().seconds(), 90);
  EXPECT_EQ(sampling->mode(), proto::PREPROCESS_MODE_QWEN_VL_UTILS);
  EXPECT_FALSE(SamplingOf(Parse({"--range", "10s-"}))->range().has_end_offset());
  EXPECT_FALSE(SamplingOf(Parse({"--range", "-40"}))->range().has_start_offset());
}

TEST(QuestionFlags, MistakesNameTheFlag) {
  const auto sampling = [](std::vector<std::string> words) {
    return std::string(SamplingOf(Parse(words)).status().message());
  };
  EXPECT_THAT(sampling({"--fps", "2", "--num-frames", "3"}), HasSubstr("exclude each other"));
  EXPECT_THAT(sampling({"--fps", "fast"}), HasSubstr("--fps: \"fast\" is not a number"));
  EXPECT_THAT(sampling({"--range", "10s"}), HasSubstr("is no range"));
  EXPECT_THAT(sampling({"--range", "40s-10s"}), HasSubstr("ends before it begins"));
  EXPECT_THAT(sampling({"--range", "a-b"}), HasSubstr("--range: \"a\" is not a time"));
  EXPECT_THAT(sampling({"--mode", "best"}), HasSubstr("is none of lmms_eval, qwen_vl_utils"));
  EXPECT_THAT(sampling({"--max-frames", "99999999999"}), HasSubstr("too large"));
  const auto question = [](std::vector<std::string> words) {
    return std::string(QuestionOf(Parse(words)).status().message());
  };
  EXPECT_THAT(question({"--turn", "bot: hi"}), HasSubstr("must begin with"));
  EXPECT_THAT(question({"--attention", "flash"}), HasSubstr("is none of native, dense"));
  EXPECT_THAT(question({"--priority", "high"}), HasSubstr("is none of batch"));
  EXPECT_THAT(question({"-q", "\xff"}), HasSubstr("not valid UTF-8"));
}

TEST(QuestionFlags, VisualsKeepTheirOrderAndKind) {
  const std::string folder = testing::TempDir();
  std::ofstream(folder + "/a.mp4") << "not really";
  std::ofstream(folder + "/b.bin") << "\x89PNG\r\n\x1a\n....";
  const auto visuals = VisualsOf(
      Parse({folder + "/a.mp4", "--image", "clips/abc", "https://x/y.mp4", folder + "/b.bin"}));
  ASSERT_TRUE(visuals.ok()) << visuals.status();
  ASSERT_EQ(visuals->size(), 4u);
  EXPECT_FALSE((*visuals)[0].image);
  EXPECT_TRUE((*visuals)[1].image);
  EXPECT_EQ((*visuals)[1].kind, VisualSource::Kind::kStored);
  EXPECT_EQ((*visuals)[2].kind, VisualSource::Kind::kUrl);
  EXPECT_TRUE((*visuals)[3].image);
  EXPECT_THAT(std::string(VisualsOf(Parse({"/does/not/exist.mp4"})).status().message()),
              HasSubstr("no such file"));
}

TEST(QuestionFlags, VisualsStandInTheFirstUserTurn) {
  auto question =
      QuestionOf(Parse({"--turn", "user: Who?", "--turn", "assistant: Me.", "-q", "Why?"}));
  std::vector<proto::Part> parts(2);
  parts[0].mutable_clip()->set_clip("clips/a");
  parts[1].mutable_image()->set_clip("clips/b");
  PutVisuals(parts, *question);
  ASSERT_EQ(question->turns(0).parts_size(), 3);
  EXPECT_TRUE(question->turns(0).parts(0).has_clip());
  EXPECT_TRUE(question->turns(0).parts(1).has_image());
  EXPECT_EQ(question->turns(0).parts(2).text(), "Who?");
  EXPECT_EQ(question->turns(2).parts_size(), 1);
}

}  // namespace
}  // namespace videonsa::client
