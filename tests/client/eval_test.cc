#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "client/eval/dataset.h"
#include "client/eval/extract.h"
#include "client/eval/tasks.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

using google::protobuf::Value;
using ::testing::HasSubstr;

Value Json(const std::string& text) {
  const auto value = ParseJson(text);
  EXPECT_TRUE(value.ok()) << value.status() << text;
  return *value;
}

// Every reply of a golden list goes through the extractor of its task.
class AnswerParsing : public testing::Test {
 protected:
  void Check(const std::string& list, std::string (*extract)(absl::string_view)) {
    const Value golden = Json(*ReadFile(VIDEONSA_TEST_DATA "/eval/answer-parsing.json"));
    const Value* cases = Member(*Member(golden, "cases"), list);
    ASSERT_NE(cases, nullptr);
    int count = 0;
    for (const auto& [reply, expected] : cases->struct_value().fields()) {
      // null: no letter scores; a random choice is told as no answer.
      std::string want = expected.string_value();
      if (want == "<random choice>") want.clear();
      EXPECT_EQ(extract(CleanReply(reply)), want) << list << ": \"" << reply << "\"";
      ++count;
    }
    EXPECT_EQ(count, 30);
  }
};

TEST_F(AnswerParsing, Mvbench) { Check("mvbench: letter that would score 1", ExtractMvbench); }
TEST_F(AnswerParsing, Videomme) { Check("videomme: extracted", ExtractVideomme); }
TEST_F(AnswerParsing, Longvideobench) { Check("longvideobench: parsed", ExtractLongvideobench); }
TEST_F(AnswerParsing, Mlvu) { Check("mlvu: extracted", ExtractMlvu); }

TEST(Extract, RepliesAreCleanedFirst) {
  EXPECT_EQ(CleanReply("  B \n"), "B");
  EXPECT_EQ(CleanReply("Hm. <answer> C </answer> so"), "C");
  EXPECT_EQ(CleanReply("it is \\boxed{D}."), "D");
  EXPECT_EQ(CleanReply("<answer>C"), "<answer>C");
}

TEST(Extract, GenericTakesALoneCapitalOrTheText) {
  EXPECT_EQ(ExtractGeneric("(B) red", 4), "B");
  EXPECT_EQ(ExtractGeneric("A man", 0), "A man");
  EXPECT_EQ(ExtractGeneric("Because", 4), "");
  EXPECT_EQ(ExtractGeneric("E", 4), "");
  EXPECT_EQ(ExtractGeneric("two.", 0), "two");
}

TEST(Extract, HostileRepliesGiveAnAnswerOrNone) {
  for (const std::string& reply : {std::string(100'000, '('), std::string("\xff\xfe B"),
                                   std::string(1, '\0'), std::string(")"), std::string("...")}) {
    ExtractMvbench(reply);
    ExtractVideomme(reply);
    ExtractLongvideobench(reply);
    EXPECT_LE(ExtractMlvu(reply).size(), reply.size());
  }
}

TEST(Prompt, Mvbench) {
  const auto item = MakeEvalItem(
      EvalTask::kMvbench,
      Json(R"({"video": "v.mp4", "question": "What <image>?", "candidates": ["left", "right"],
               "answer": "right", "sub_task": "moving_direction"})"));
  ASSERT_TRUE(item.ok()) << item.status();
  EXPECT_EQ(item->prompt,
            "Question:What ?\nOption:\n(A) left\n(B) right\nOnly give the best option.\n");
  EXPECT_EQ(item->truth, "B");
  EXPECT_EQ(item->clip, "v.mp4");
  EXPECT_EQ(item->groups[0].second, "moving_direction");
}

TEST(Prompt, Videomme) {
  const auto item = MakeEvalItem(
      EvalTask::kVideomme, Json(R"({"videoID": "abc", "question_id": "001-1", "question": "Who?",
               "options": ["A. a cook", "B. a king"], "answer": "A", "duration": "short"})"));
  ASSERT_TRUE(item.ok()) << item.status();
  EXPECT_EQ(
      item->prompt,
      "Select the best answer to the following multiple-choice question based on the video and "
      "the subtitles. Respond with only the letter (A, B, C, or D) of the correct option.\n"
      "Who?\nA. a cook\nB. a king\n\nAnswer with the option's letter from the given choices "
      "directly.");
  EXPECT_EQ(item->clip, "data/abc.mp4");
  EXPECT_EQ(item->id, "001-1");
  EXPECT_EQ(AnswerTokens(EvalTask::kVideomme), 16);
}

TEST(Prompt, MlvuAndLongvideobenchAndGeneric) {
  const auto mlvu = MakeEvalItem(
      EvalTask::kMlvu,
      Json(R"({"video_name": "m.mp4", "question": "Count?\n(A) 1\n(B) 2", "answer": "B",
               "task_type": "count"})"));
  ASSERT_TRUE(mlvu.ok()) << mlvu.status();
  EXPECT_EQ(mlvu->prompt, "Count?\n(A) 1\n(B) 2\nOnly give the best option.\nBest option: (");
  const auto lvb = MakeEvalItem(
      EvalTask::kLongvideobench,
      Json(R"({"id": "x", "video_path": "l.mp4", "question": "Where?", "option0": "here",
               "option1": "there", "option2": "N/A", "correct_choice": 1, "duration_group": 60})"));
  ASSERT_TRUE(lvb.ok()) << lvb.status();
  EXPECT_EQ(lvb->prompt,
            "Where?\nA. here\nB. there\nAnswer with the option's letter from the given choices "
            "directly.\n");
  EXPECT_EQ(lvb->truth, "B");
  EXPECT_EQ(AnswerTokens(EvalTask::kLongvideobench), 32);
  EXPECT_EQ(lvb->groups[0], std::make_pair(std::string("duration_group"), std::string("60")));
  const auto generic =
      MakeEvalItem(EvalTask::kGeneric,
                   Json(R"({"clip": "clips/x", "question": "How many?", "answer": "Two."})"));
  ASSERT_TRUE(generic.ok());
  EXPECT_EQ(generic->prompt, "How many?");
  EXPECT_TRUE(IsRight(EvalTask::kGeneric, *generic, "two"));
  EXPECT_FALSE(IsRight(EvalTask::kGeneric, *generic, "three"));
}

TEST(Prompt, MissingFieldsAreNamed) {
  const auto message = [](EvalTask task, const char* record) {
    return std::string(MakeEvalItem(task, Json(record)).status().message());
  };
  EXPECT_THAT(message(EvalTask::kGeneric, "{}"), HasSubstr("\"question\""));
  EXPECT_THAT(message(EvalTask::kMvbench, R"({"question": "q"})"), HasSubstr("\"candidates\""));
  EXPECT_THAT(message(EvalTask::kMvbench, R"({"question": "q", "candidates": ["a"]})"),
              HasSubstr("\"answer\""));
  EXPECT_THAT(message(EvalTask::kMlvu, R"({"question": "q", "answer": "A"})"),
              HasSubstr("\"task_type\""));
  EXPECT_THAT(message(EvalTask::kLongvideobench,
                      R"({"question": "q", "option0": "a", "correct_choice": 3})"),
              HasSubstr("\"correct_choice\""));
  EXPECT_FALSE(ParseEvalTask("imagenet").ok());
}

EvalItem ItemOf(const std::string& kind, const std::string& value) {
  EvalItem item;
  item.truth = "A";
  item.groups = {{kind, value}};
  return item;
}

EvalOutcome OutcomeOf(const std::string& reply, bool right) {
  return {.reply = reply, .extracted = reply, .right = right};
}

TEST(Score, EachTaskHasItsOwnDenominator) {
  const std::vector<EvalItem> items = {ItemOf("task_type", "count"), ItemOf("task_type", "count"),
                                       ItemOf("task_type", "count"), ItemOf("task_type", "ego")};
  const std::vector<EvalOutcome> outcomes = {OutcomeOf("A", true), OutcomeOf("B", false),
                                             OutcomeOf("", false), OutcomeOf("A", true)};
  EXPECT_NEAR(ScoreTask(EvalTask::kMvbench, items, outcomes).value, 100 * 2.0 / 3, 1e-9);
  EXPECT_NEAR(ScoreTask(EvalTask::kVideomme, items, outcomes).value, 50, 1e-9);
  EXPECT_NEAR(ScoreTask(EvalTask::kMlvu, items, outcomes).value, 100 * (1.0 / 3 + 1) / 2, 1e-9);
  EXPECT_NEAR(ScoreTask(EvalTask::kLongvideobench, items, outcomes).value, 0.5, 1e-9);
  const EvalScore score = ScoreTask(EvalTask::kGeneric, items, outcomes);
  EXPECT_EQ(score.empty, 1);
  EXPECT_EQ(score.groups.at("task_type").at("count").second, 3);
  EXPECT_EQ(ScoreTask(EvalTask::kMlvu, {}, {}).value, 0);
}

TEST(Dataset, LinesAreReadAndNamed) {
  const std::string path = testing::TempDir() + "/data.jsonl";
  std::ofstream(path) << "{\"a\": \"x\", \"n\": 3, \"l\": [\"p\", 4]}\n\n{\"a\": \"y\"}\n";
  const auto records = ReadDataset(path);
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 2u);
  EXPECT_EQ((*records)[1].line, 3);
  EXPECT_EQ(TextField((*records)[0].value, "n"), "3");
  EXPECT_EQ(ListField((*records)[0].value, "l"), (std::vector<std::string>{"p", "4"}));
  std::ofstream(path) << "{}\nnot json\n";
  EXPECT_THAT(std::string(ReadDataset(path).status().message()), HasSubstr("line 2"));
  EXPECT_EQ(ResolveClip("a/b.jsonl", "c.mp4"), "a/c.mp4");
  EXPECT_EQ(ResolveClip("b.jsonl", "c.mp4"), "c.mp4");
  EXPECT_EQ(ResolveClip("a/b.jsonl", "clips/x"), "clips/x");
  EXPECT_EQ(ResolveClip("a/b.jsonl", "/c.mp4"), "/c.mp4");
}

}  // namespace
}  // namespace videonsa::client
