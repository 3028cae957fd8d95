#include <atomic>
#include <map>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/command.h"
#include "client/cli/question_flags.h"
#include "client/cli/visuals.h"
#include "client/error.h"
#include "client/eval/dataset.h"
#include "client/eval/extract.h"
#include "client/eval/tasks.h"
#include "client/format.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

struct EvalPlan {
  EvalTask task = EvalTask::kGeneric;
  std::vector<EvalItem> items;
  std::vector<proto::AskStreamRequest> requests;
  int concurrency = 4;
};

struct Answered {
  EvalOutcome outcome;
  proto::AskResult result;
  absl::Status status;
};

absl::Status ReadItems(const ParsedArgs& args, EvalPlan& plan) {
  auto task = ParseEvalTask(args.Get("task"));
  if (!task.ok()) return task.status();
  plan.task = *task;
  const std::string path = args.Get("dataset");
  if (path.empty()) return absl::InvalidArgumentError("no data set; add --dataset FILE.jsonl");
  auto records = ReadDataset(path);
  if (!records.ok()) return records.status();
  auto limit = args.Integer("limit", 0);
  if (!limit.ok()) return limit.status();
  const std::string folder = args.Has("videos") ? absl::StrCat(args.Get("videos"), "/x") : path;
  for (const DatasetRecord& record : *records) {
    auto item = MakeEvalItem(plan.task, record.value);
    if (!item.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " line ", record.line, ": ", item.status().message()));
    }
    if (item->id.empty()) item->id = absl::StrCat(record.line);
    if (!item->clip.empty()) item->clip = ResolveClip(folder, item->clip);
    plan.items.push_back(*std::move(item));
    if (*limit > 0 && static_cast<int64_t>(plan.items.size()) == *limit) break;
  }
  auto concurrency = args.Integer("concurrency", 4);
  if (!concurrency.ok()) return concurrency.status();
  if (*concurrency < 1 || *concurrency > 256) {
    return absl::InvalidArgumentError("--concurrency is not in [1, 256]");
  }
  plan.concurrency = static_cast<int>(*concurrency);
  return absl::OkStatus();
}

// Questions as the published evaluation asks them: clip first, then the text, greedy, short.
absl::Status MakeRequests(const CommandContext& context, OpenedClient& opened, EvalPlan& plan) {
  auto sampling = SamplingOf(context.args);
  if (!sampling.ok()) return sampling.status();
  std::map<std::string, std::vector<proto::Part>> delivered;
  for (const EvalItem& item : plan.items) {
    proto::AskStreamRequest& request = plan.requests.emplace_back();
    proto::Question& question = *request.mutable_question();
    question.set_system_instruction("You are a helpful assistant.");
    question.mutable_generation()->set_max_output_tokens(AnswerTokens(plan.task));
    question.mutable_generation()->set_temperature(0);
    if (absl::Status status = ApplySettings(context.args, question); !status.ok()) return status;
    proto::Turn& turn = *question.add_turns();
    turn.set_role(proto::Turn::ROLE_USER);
    turn.add_parts()->set_text(item.prompt);
    if (item.clip.empty()) continue;
    auto found = delivered.find(item.clip);
    if (found == delivered.end()) {
      const CommandSpec one{.max_arguments = 1};
      auto words = ParseArgs(one, {"--", item.clip});
      if (!words.ok()) return words.status();
      auto visuals = VisualsOf(*words);
      if (!visuals.ok()) return visuals.status();
      context.console.Status(absl::StrCat("clip ", delivered.size() + 1, " ..."));
      // Uploaded even if small: a data set in memory would not be.
      auto parts = DeliverVisuals(context, opened, *visuals,
                                  {.sampling = *sampling, .always_upload = true, .quiet = true});
      if (!parts.ok()) return parts.status();
      found = delivered.emplace(item.clip, *std::move(parts)).first;
    }
    PutVisuals(found->second, question);
  }
  return absl::OkStatus();
}

std::vector<Answered> AskAll(const CommandContext& context, OpenedClient& opened,
                             const EvalPlan& plan) {
  std::vector<Answered> answers(plan.items.size());
  std::atomic<size_t> next = 0, done = 0;
  const auto work = [&] {
    for (size_t i; (i = next++) < plan.items.size();) {
      Answered& answer = answers[i];
      auto result = opened.client->AskStream(plan.requests[i], {}, opened.call);
      answer.status = result.status();
      answer.outcome.failed = !result.ok();
      if (result.ok()) {
        answer.result = *std::move(result);
        answer.outcome.reply = CleanReply(answer.result.text());
        answer.outcome.extracted = ExtractAnswer(plan.task, plan.items[i], answer.outcome.reply);
        answer.outcome.right = IsRight(plan.task, plan.items[i], answer.outcome.reply);
      }
      ++done;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < plan.concurrency; ++i) threads.emplace_back(work);
  while (done < plan.items.size()) {
    context.console.Status(absl::StrCat("answered ", done.load(), " of ", plan.items.size()));
    absl::SleepFor(absl::Milliseconds(50));
  }
  for (std::thread& thread : threads) thread.join();
  context.console.ClearStatus();
  return answers;
}

std::string ReplyLines(const EvalPlan& plan, const std::vector<Answered>& answers) {
  std::string out;
  for (size_t i = 0; i < answers.size(); ++i) {
    const Answered& answer = answers[i];
    JsonWriter json(false);
    json.BeginObject().Key("id").String(plan.items[i].id).Key("reply").String(answer.outcome.reply);
    json.Key("extracted").String(answer.outcome.extracted);
    json.Key("truth").String(plan.items[i].truth).Key("right").Bool(answer.outcome.right);
    if (answer.outcome.failed) {
      const ErrorDetails details = DetailsOf(answer.status);
      json.Key("error").String(absl::StrCat(CodeName(details.code), " ", details.reason));
      json.Key("message").String(details.message);
    } else {
      json.Key("frames").Integer(answer.result.usage().frames_used());
      json.Key("prompt_tokens")
          .Integer(answer.result.usage().prompt().vision() + answer.result.usage().prompt().text());
      json.Key("budget_fraction").Number(answer.result.attention().budget_fraction());
      json.Key("total_s").Number(absl::ToDoubleSeconds(FromProto(answer.result.timing().total())));
    }
    absl::StrAppend(&out, json.EndObject().text(), "\n");
  }
  return out;
}

struct Means {
  double budget = 0, total_s = 0, ttft_s = 0;
};

Means MeansOf(const std::vector<Answered>& answers) {
  Means means;
  int64_t count = 0;
  for (const Answered& answer : answers) {
    if (answer.outcome.failed) continue;
    ++count;
    const proto::Timing& timing = answer.result.timing();
    means.budget += answer.result.attention().budget_fraction();
    means.total_s += absl::ToDoubleSeconds(FromProto(timing.total()));
    means.ttft_s += absl::ToDoubleSeconds(FromProto(timing.time_to_first_token()));
  }
  if (count == 0) return means;
  const double n = static_cast<double>(count);
  return {means.budget / n, means.total_s / n, means.ttft_s / n};
}

std::string ScoreJson(const EvalScore& score, const Means& means) {
  JsonWriter json;
  json.BeginObject().Key("schema").String("videonsa.eval/1").Key("metric").String(score.metric);
  json.Key("value").Number(score.value).Key("asked").Integer(score.asked);
  json.Key("right").Integer(score.right).Key("empty").Integer(score.empty);
  json.Key("unparsed").Integer(score.unparsed).Key("failed").Integer(score.failed);
  json.Key("mean_budget_fraction").Number(means.budget).Key("mean_total_s").Number(means.total_s);
  json.Key("groups").BeginObject();
  for (const auto& [kind, values] : score.groups) {
    json.Key(kind).BeginObject();
    for (const auto& [value, counts] : values) {
      json.Key(value).BeginObject().Key("right").Integer(counts.first);
      json.Key("counted").Integer(counts.second).EndObject();
    }
    json.EndObject();
  }
  return json.EndObject().EndObject().text() + "\n";
}

std::string ScoreText(EvalTask task, const EvalScore& score, const Means& means) {
  const int digits = task == EvalTask::kLongvideobench ? 5 : 2;
  std::string out = absl::StrFormat("%-28s %.*f\n", score.metric, digits, score.value);
  absl::StrAppend(
      &out, absl::StrFormat("%-28s %d of %d right, %d empty, %d unparsed, %d failed\n", "replies",
                            score.right, score.asked, score.empty, score.unparsed, score.failed));
  absl::StrAppend(&out, absl::StrFormat("%-28s %s of dense pairs, first token %s, all in %s\n",
                                        "mean attention and time", Percent(means.budget),
                                        HumanDuration(absl::Seconds(means.ttft_s)),
                                        HumanDuration(absl::Seconds(means.total_s))));
  for (const auto& [kind, values] : score.groups) {
    absl::StrAppend(&out, "by ", kind, "\n");
    for (const auto& [value, counts] : values) {
      const double share =
          counts.second > 0 ? static_cast<double>(counts.first) / counts.second : 0;
      absl::StrAppend(&out, absl::StrFormat("  %-26s %6.2f  (%d of %d)\n", PrintableText(value),
                                            100 * share, counts.first, counts.second));
    }
  }
  return out;
}

int RunEval(CommandContext& context) {
  EvalPlan plan;
  if (absl::Status status = ReadItems(context.args, plan); !status.ok()) {
    return UsageError(context, status);
  }
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Minutes(10));
  if (!opened.ok()) return UsageError(context, opened.status());
  if (absl::Status status = MakeRequests(context, *opened, plan); !status.ok()) {
    return Failure(context, status);
  }
  const std::vector<Answered> answers = AskAll(context, *opened, plan);
  std::vector<EvalOutcome> outcomes;
  std::map<std::string, int> errors;
  for (const Answered& answer : answers) {
    outcomes.push_back(answer.outcome);
    if (answer.outcome.failed) ++errors[ErrorText(answer.status)];
  }
  const EvalScore score = ScoreTask(plan.task, plan.items, outcomes);
  const Means means = MeansOf(answers);
  for (const auto& [error, count] : errors) {
    context.console.Error(absl::StrCat(count, " times ", error));
  }
  if (context.args.Has("out")) {
    const absl::Status written = WriteFile(context.args.Get("out"), ReplyLines(plan, answers));
    if (!written.ok()) return Failure(context, written);
  }
  context.console.Answer(context.args.Has("json") ? ScoreJson(score, means)
                                                  : ScoreText(plan.task, score, means));
  return score.failed > 0 ? kExitFailed : kExitOk;
}

}  // namespace

std::vector<Command> EvalCommands() {
  CommandSpec spec;
  spec.name = "eval";
  spec.arguments = "--task NAME --dataset FILE.jsonl [flags]";
  spec.summary = "score a server on a benchmark of video questions";
  spec.description =
      "Asks every question of a data set as the published evaluation does (prompt, greedy, 16 or "
      "32 "
      "tokens) and scores the replies by the task's own rules. Replies that the reference would "
      "answer by chance (longvideobench) count as wrong and are told as unparsed.\n\n"
      "Records carry the fields of the published data sets; \"clip\" names the video where they "
      "do not. Task generic takes question, answer, and options if there are any.";
  spec.groups = {{"Evaluation",
                  {{"task", "NAME", "mvbench, videomme, mlvu, longvideobench or generic"},
                   {"dataset", "FILE", "records, one JSON object a line"},
                   {"videos", "DIR", "folder of the clips (the data set's folder)"},
                   {"limit", "N", "only the first so many"},
                   {"concurrency", "N", "questions at once (4)"},
                   {"out", "FILE", "write every reply, one JSON object a line"}}}};
  for (FlagGroup& group : QuestionFlags()) {
    if (group.title != "Question") spec.groups.push_back(std::move(group));
  }
  spec.groups.push_back(OutputFlags());
  spec.groups.push_back(ConnectionFlags());
  spec.examples = {
      {"multiple choice at 64 frames",
       "eval --task videomme --dataset test.jsonl --videos videomme --num-frames 64"},
      {"the same under a budget", "eval --task mlvu --dataset dev.jsonl --max-budget 0.05 --json"}};
  return {{spec, RunEval}};
}

}  // namespace videonsa::client
