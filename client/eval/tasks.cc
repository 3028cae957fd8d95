#include "client/eval/tasks.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "client/eval/dataset.h"
#include "client/eval/extract.h"

namespace videonsa::client {
namespace {

using google::protobuf::Value;

constexpr std::pair<const char*, EvalTask> kTasks[] = {
    {"mvbench", EvalTask::kMvbench},
    {"videomme", EvalTask::kVideomme},
    {"mlvu", EvalTask::kMlvu},
    {"longvideobench", EvalTask::kLongvideobench},
    {"generic", EvalTask::kGeneric}};
constexpr char kDirect[] = "Answer with the option's letter from the given choices directly.";

std::string Letter(size_t index) { return std::string(1, static_cast<char>('A' + index)); }

absl::Status Missing(const std::string& field) {
  return absl::InvalidArgumentError(absl::StrCat("field \"", field, "\" is missing or unusable"));
}

void AddGroups(const Value& record, std::initializer_list<const char*> kinds, EvalItem& item) {
  for (const char* kind : kinds) {
    const std::string value = TextField(record, kind);
    if (!value.empty()) item.groups.emplace_back(kind, value);
  }
}

// Lines "A. text".
std::string Lettered(const std::vector<std::string>& options) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < options.size(); ++i) {
    lines.push_back(absl::StrCat(Letter(i), ". ", options[i]));
  }
  return absl::StrJoin(lines, "\n");
}

absl::Status FillMvbench(const Value& record, const std::string& question, EvalItem& item) {
  const std::vector<std::string> candidates = ListField(record, "candidates");
  const auto right = std::find(candidates.begin(), candidates.end(), TextField(record, "answer"));
  if (candidates.empty() || candidates.size() > 26) return Missing("candidates");
  if (right == candidates.end()) return Missing("answer");
  item.truth = Letter(static_cast<size_t>(right - candidates.begin()));
  item.num_options = static_cast<int>(candidates.size());
  item.prompt = absl::StrCat("Question:", question, "\nOption:\n");
  for (size_t i = 0; i < candidates.size(); ++i) {
    absl::StrAppend(&item.prompt, "(", Letter(i), ") ", candidates[i], "\n");
  }
  item.prompt += "Only give the best option.\n";
  item.clip = TextField(record, "video");
  AddGroups(record, {"sub_task"}, item);
  return absl::OkStatus();
}

absl::Status FillVideomme(const Value& record, const std::string& question, EvalItem& item) {
  const std::vector<std::string> options = ListField(record, "options");
  if (options.empty()) return Missing("options");
  item.truth = TextField(record, "answer");
  item.num_options = static_cast<int>(options.size());
  item.prompt = absl::StrCat(
      "Select the best answer to the following multiple-choice question based on the video and the "
      "subtitles. Respond with only the letter (A, B, C, or D) of the correct option.\n",
      question, "\n", absl::StrJoin(options, "\n"), "\n\n", kDirect);
  const std::string id = TextField(record, "videoID");
  if (!id.empty()) item.clip = absl::StrCat("data/", id, ".mp4");
  AddGroups(record, {"duration", "domain", "sub_category", "task_type"}, item);
  return absl::OkStatus();
}

absl::Status FillMlvu(const Value& record, const std::string& question, EvalItem& item) {
  item.truth = TextField(record, "answer");
  item.prompt = absl::StrCat(question, "\nOnly give the best option.\nBest option: (");
  item.clip = TextField(record, "video_name");
  AddGroups(record, {"task_type"}, item);
  if (item.groups.empty()) return Missing("task_type");
  return absl::OkStatus();
}

absl::Status FillLongvideobench(const Value& record, const std::string& question, EvalItem& item) {
  std::vector<std::string> options;
  for (int i = 0; i < 5; ++i) {
    const std::string option = TextField(record, absl::StrCat("option", i));
    if (!option.empty() && option != "N/A") options.push_back(option);
  }
  size_t correct = 0;
  if (options.empty()) return Missing("option0");
  if (!absl::SimpleAtoi(TextField(record, "correct_choice"), &correct) ||
      correct >= options.size()) {
    return Missing("correct_choice");
  }
  item.truth = Letter(correct);
  item.num_options = static_cast<int>(options.size());
  item.prompt = absl::StrCat(question, "\n", Lettered(options), "\n", kDirect, "\n");
  item.clip = TextField(record, "video_path");
  AddGroups(record, {"duration_group", "question_category"}, item);
  return absl::OkStatus();
}

absl::Status FillGeneric(const Value& record, const std::string& question, EvalItem& item) {
  const std::vector<std::string> options = ListField(record, "options");
  item.num_options = static_cast<int>(options.size());
  item.truth = TextField(record, "answer");
  if (item.truth.empty()) return Missing("answer");
  const auto named = std::find(options.begin(), options.end(), item.truth);
  if (named != options.end()) item.truth = Letter(static_cast<size_t>(named - options.begin()));
  if (options.size() > 26) return Missing("options");
  item.prompt =
      options.empty() ? question : absl::StrCat(question, "\n", Lettered(options), "\n", kDirect);
  item.clip = TextField(record, "video");
  AddGroups(record, {"category"}, item);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EvalTask> ParseEvalTask(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& [word, task] : kTasks) {
    if (name == word) return task;
    known.push_back(word);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--task: \"", name, "\" is none of ", absl::StrJoin(known, ", ")));
}

absl::StatusOr<EvalItem> MakeEvalItem(EvalTask task, const Value& record) {
  EvalItem item;
  const std::string question = TextField(record, "question");
  if (question.empty()) return Missing("question");
  absl::Status status;
  switch (task) {
    case EvalTask::kMvbench:
      status = FillMvbench(record, question, item);
      break;
    case EvalTask::kVideomme:
      status = FillVideomme(record, question, item);
      break;
    case EvalTask::kMlvu:
      status = FillMlvu(record, question, item);
      break;
    case EvalTask::kLongvideobench:
      status = FillLongvideobench(record, question, item);
      break;
    case EvalTask::kGeneric:
      status = FillGeneric(record, question, item);
      break;
  }
  if (!status.ok()) return status;
  if (item.truth.empty()) return Missing("answer");
  absl::StrReplaceAll({{"<image>", ""}}, &item.prompt);
  if (const std::string clip = TextField(record, "clip"); !clip.empty()) item.clip = clip;
  for (const char* key : {"id", "question_id"}) {
    if (item.id.empty()) item.id = TextField(record, key);
  }
  return item;
}

int AnswerTokens(EvalTask task) { return task == EvalTask::kLongvideobench ? 32 : 16; }

std::string ExtractAnswer(EvalTask task, const EvalItem& item, const std::string& reply) {
  switch (task) {
    case EvalTask::kMvbench:
      return ExtractMvbench(reply);
    case EvalTask::kVideomme:
      return ExtractVideomme(reply);
    case EvalTask::kMlvu:
      return ExtractMlvu(reply);
    case EvalTask::kLongvideobench:
      return ExtractLongvideobench(reply);
    case EvalTask::kGeneric:
      return ExtractGeneric(reply, item.num_options);
  }
  return "";
}

bool IsRight(EvalTask task, const EvalItem& item, const std::string& reply) {
  const std::string extracted = ExtractAnswer(task, item, reply);
  const bool free_text = task == EvalTask::kGeneric && item.num_options == 0;
  if (free_text) {
    return absl::EqualsIgnoreCase(extracted, absl::StripSuffix(item.truth, "."));
  }
  return extracted == item.truth;
}

EvalScore ScoreTask(EvalTask task, const std::vector<EvalItem>& items,
                    const std::vector<EvalOutcome>& outcomes) {
  EvalScore score;
  for (size_t i = 0; i < items.size(); ++i) {
    const EvalOutcome& outcome = outcomes[i];
    ++score.asked;
    score.right += outcome.right;
    score.failed += outcome.failed;
    score.empty += !outcome.failed && outcome.reply.empty();
    score.unparsed += !outcome.failed && !outcome.reply.empty() && outcome.extracted.empty();
    const bool counted = task != EvalTask::kMvbench || outcome.failed || !outcome.reply.empty();
    for (const auto& [kind, value] : items[i].groups) {
      auto& [right, all] = score.groups[kind][value];
      right += outcome.right;
      all += counted;
    }
  }
  const auto share = [](int64_t right, int64_t all) {
    return all > 0 ? static_cast<double>(right) / static_cast<double>(all) : 0;
  };
  score.value = 100 * share(score.right, score.asked);
  switch (task) {
    case EvalTask::kMvbench:
      score.metric = "mvbench_accuracy";
      score.value = 100 * share(score.right, score.asked - score.empty);
      break;
    case EvalTask::kVideomme:
      score.metric = "videomme_perception_score";
      break;
    case EvalTask::kMlvu: {
      score.metric = "mlvu_percetion_score";  // spelt as published
      double sum = 0;
      const auto& types = score.groups["task_type"];
      for (const auto& [type, counts] : types) sum += share(counts.first, counts.second);
      score.value = types.empty() ? 0 : 100 * sum / static_cast<double>(types.size());
      break;
    }
    case EvalTask::kLongvideobench:
      score.metric = "lvb_acc";
      score.value = share(score.right, score.asked);
      break;
    case EvalTask::kGeneric:
      score.metric = "accuracy";
      break;
  }
  return score;
}

}  // namespace videonsa::client
