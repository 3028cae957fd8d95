#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/cli/question_flags.h"
#include "client/cli/report_file.h"
#include "client/cli/visuals.h"
#include "client/digest.h"
#include "client/format.h"
#include "client/json.h"
#include "client/report/ask_text.h"

namespace videonsa::client {
namespace {

// What is going on, on the status line, until the first text arrives.
class AskProgress {
 public:
  explicit AskProgress(Console& console) : console_(console), begin_(absl::Now()) {}

  void Stage(const std::string& stage, int64_t done, int64_t total) {
    std::string line = absl::StrFormat("%-10s ", stage);
    if (total > 0) {
      const double share = static_cast<double>(done) / static_cast<double>(total);
      absl::StrAppend(&line, console_.painter().Bar(share, 24),
                      absl::StrFormat(" %3.0f %%", 100 * share));
    } else if (done > 0) {
      absl::StrAppend(&line, Grouped(done));
    }
    absl::StrAppend(&line, "  ", console_.Paint(Style::kDim, HumanDuration(absl::Now() - begin_)));
    console_.Status(line, stage != last_stage_);
    last_stage_ = stage;
  }

  void Accepted(const proto::AcceptedEvent& event) {
    const int64_t tokens = event.prompt_tokens().vision() + event.prompt_tokens().text();
    std::string line = event.queue_position() > 0
                           ? absl::StrCat("waiting, ", event.queue_position(), " ahead")
                           : "accepted";
    if (tokens > 0) absl::StrAppend(&line, ", ", Grouped(tokens), " tokens");
    console_.Status(line, true);
  }

 private:
  Console& console_;
  const absl::Time begin_;
  std::string last_stage_;
};

struct AskPlan {
  std::vector<VisualSource> visuals;
  proto::Question question;
  VisualDelivery delivery;
};

absl::StatusOr<AskPlan> PlanOf(const CommandContext& context, bool question_needed) {
  const ParsedArgs& args = context.args;
  AskPlan plan;
  auto visuals = VisualsOf(args);
  if (!visuals.ok()) return visuals.status();
  plan.visuals = *std::move(visuals);
  auto question = QuestionOf(args);
  if (!question.ok()) return question.status();
  plan.question = *std::move(question);
  auto sampling = SamplingOf(args);
  if (!sampling.ok()) return sampling.status();
  plan.delivery = {.sampling = *sampling, .always_upload = args.Has("upload")};
  if (question_needed && args.Get("question").empty()) {
    return absl::InvalidArgumentError(
        "no question; add -q \"What happens in this clip?\" (videonsa ask --help)");
  }
  if (args.Get("question") == "-") {
    const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    if (!IsUtf8(text)) return absl::InvalidArgumentError("the question is not valid UTF-8");
    proto::Turn& last = *plan.question.mutable_turns(plan.question.turns_size() - 1);
    last.mutable_parts(last.parts_size() - 1)->set_text(text);
  }
  proto::ReportConfig& report = *plan.question.mutable_report();
  report.set_stage_timings(true);
  report.set_attended_intervals(args.Has("evidence") || args.Has("report"));
  report.set_per_layer_attention(args.Has("report-layers") || args.Has("report"));
  report.set_gates(args.Has("gates") || args.Has("report"));
  return plan;
}

std::string AskJson(const proto::AskResult& result, absl::Duration first_text,
                    absl::Duration total) {
  JsonWriter json;
  json.BeginObject().Key("schema").String("videonsa.ask/1");
  json.Key("answer").String(result.text());
  json.Key("client").BeginObject();
  json.Key("time_to_first_text_s").Number(absl::ToDoubleSeconds(first_text));
  json.Key("total_s").Number(absl::ToDoubleSeconds(total)).EndObject();
  return json.Key("result").Message(result).EndObject().text();
}

std::vector<std::string> NamesOf(const std::vector<VisualSource>& visuals) {
  std::vector<std::string> names;
  for (const VisualSource& visual : visuals) names.push_back(PrintableText(visual.name));
  return names;
}

int RunAsk(CommandContext& context) {
  if (context.args.All("question").size() > 1) return RunAskMany(context);
  absl::StatusOr<AskPlan> plan = PlanOf(context, true);
  if (!plan.ok()) return UsageError(context, plan.status());
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::InfiniteDuration());
  if (!opened.ok()) return UsageError(context, opened.status());
  Console& console = context.console;
  const absl::Time begin = absl::Now();
  auto parts = DeliverVisuals(context, *opened, plan->visuals, plan->delivery);
  if (!parts.ok()) return Failure(context, parts.status());

  proto::AskStreamRequest request;
  request.set_request_id(RandomUuid());
  *request.mutable_question() = plan->question;
  PutVisuals(*parts, *request.mutable_question());
  request.mutable_question()->set_session(context.args.Get("session"));
  const bool json = context.args.Has("json");
  const absl::Time asked = absl::Now();
  absl::Time first_text = absl::InfiniteFuture();
  std::string answer;
  AskProgress progress(console);
  console.Status("asking ...", true);
  AskCallbacks callbacks;
  callbacks.on_accepted = [&](const auto& event) { progress.Accepted(event); };
  callbacks.on_progress = [&](const auto& event) {
    if (answer.empty()) progress.Stage(event.stage(), event.done(), event.total());
  };
  callbacks.on_delta = [&](const proto::DeltaEvent& event) {
    first_text = std::min(first_text, absl::Now());
    answer += event.text();
    if (!json) console.Answer(event.text());
  };
  auto result = opened->client->AskStream(request, callbacks, opened->call);
  console.ClearStatus();
  if (!json && !answer.empty() && answer.back() != '\n') console.Answer("\n");
  if (!result.ok()) return Failure(context, result.status());
  if (!json && answer.empty()) console.Answer(absl::StrCat(result->text(), "\n"));
  if (json) {
    first_text = std::min(first_text, absl::Now());
    console.Answer(absl::StrCat(AskJson(*result, first_text - asked, absl::Now() - begin), "\n"));
  }
  console.Note(absl::StrCat(json ? "" : "\n", AskText(*result, console.painter(),
                                                      {.columns = console.options().columns,
                                                       .evidence = context.args.Has("evidence"),
                                                       .layers = context.args.Has("report-layers"),
                                                       .gates = context.args.Has("gates"),
                                                       .visual_names = NamesOf(plan->visuals)})));
  if (context.args.Has("report")) {
    const absl::Status written =
        WriteAskReport(context.args.Get("report"), plan->question, *result, plan->visuals, console);
    if (!written.ok()) return Failure(context, written);
  }
  return kExitOk;
}

void PrintEstimate(const proto::EstimateResponse& estimate, Console& console) {
  std::string out;
  for (const proto::VisualReport& visual : estimate.visuals()) {
    absl::StrAppend(&out, visual.image() ? "picture    " : "clip       ", VisualText(visual), "\n");
  }
  const int64_t tokens = estimate.prompt().vision() + estimate.prompt().text();
  absl::StrAppend(&out, "tokens     ", Grouped(tokens), " (", Grouped(estimate.prompt().vision()),
                  " vision, ", Grouped(estimate.prompt().text()), " text), ",
                  Grouped(estimate.frames()), " frames\n");
  absl::StrAppend(&out, "memory     ", Grouped(estimate.kv_pages()), " pages, ",
                  HumanBytes(static_cast<double>(estimate.kv_bytes())), " of ",
                  HumanBytes(static_cast<double>(estimate.peak_bytes())), " in all\n");
  if (estimate.budget_fraction() > 0) {
    absl::StrAppend(&out, "attention  ", Percent(estimate.budget_fraction()),
                    " of the dense pairs\n");
  }
  if (estimate.has_time_to_first_token()) {
    absl::StrAppend(&out, "time       first token after ",
                    HumanDuration(FromProto(estimate.time_to_first_token())), ", all in ",
                    HumanDuration(FromProto(estimate.total())), " (on an idle server)\n");
  }
  absl::StrAppend(&out, "admissible ",
                  estimate.admissible()
                      ? "yes"
                      : absl::StrCat("no, ", estimate.reason(), ": ", estimate.message()),
                  "\n");
  console.Answer(out);
}

int RunEstimate(CommandContext& context) {
  absl::StatusOr<AskPlan> plan = PlanOf(context, false);
  if (!plan.ok()) return UsageError(context, plan.status());
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Minutes(2));
  if (!opened.ok()) return UsageError(context, opened.status());
  auto parts = DeliverVisuals(context, *opened, plan->visuals, plan->delivery);
  if (!parts.ok()) return Failure(context, parts.status());
  PutVisuals(*parts, plan->question);
  auto estimate = opened->client->Estimate(plan->question, opened->call);
  if (!estimate.ok()) return Failure(context, estimate.status());
  if (context.args.Has("json")) {
    JsonWriter json;
    json.BeginObject().Key("schema").String("videonsa.estimate/1");
    json.Key("estimate").Message(*estimate).EndObject();
    context.console.Answer(absl::StrCat(json.text(), "\n"));
  } else {
    PrintEstimate(*estimate, context.console);
  }
  return estimate->admissible() ? kExitOk : kExitFailed;
}

CommandSpec AskSpec() {
  CommandSpec spec;
  spec.name = "ask";
  spec.arguments = "[CLIP...] -q TEXT [flags]";
  spec.summary = "ask a question about clips and pictures";
  spec.description =
      "Asks a question about clips and pictures and prints the answer as it is written.\n\n"
      "A CLIP is a file (sent inside the question if small, else uploaded; a second question about "
      "the same file sends nothing), a stored clip (clips/ID), or an https URL that the server is "
      "allowed to fetch. PNG, JPEG and WebP files are shown as pictures.\n\n"
      "The answer goes to stdout, everything else to stderr. Exit code: 0 answered, 1 refused or "
      "failed (the reason is on stderr), 2 wrong usage.";
  spec.groups = QuestionFlags();
  spec.groups.push_back(
      {"Session",
       {{"session", "NAME", "go on with a session (videonsa session create); sessions/ID"}}});
  spec.groups.push_back({"Report",
                         {{"evidence", "", "show which seconds of the clips were looked at"},
                          {"report-layers", "", "attention pairs of every layer"},
                          {"gates", "", "mean gate of each attention branch by layer"},
                          {"report", "FILE",
                           "write one HTML page with the answer, pictures of what was looked at, "
                           "timeline, attention account and times"}}});
  spec.groups.push_back({"Upload", {{"upload", "", "upload files even if they are small"}}});
  spec.groups.push_back(OutputFlags());
  spec.groups.push_back(ConnectionFlags());
  spec.examples = {
      {"what happens, two frames a second", "ask party.mp4 -q \"What happens?\" --fps 2"},
      {"only half a minute, and show what was looked at",
       "ask talk.mp4 -q \"What is on the slide?\" --range 10s-40s --evidence"},
      {"the same as a page, with pictures",
       "ask talk.mp4 -q \"What is on the slide?\" --report answer.html"},
      {"compare a clip with a picture",
       "ask street.mp4 --image sign.png -q \"Does this sign appear in the clip?\""},
      {"spend at most 5 % of dense attention", "ask match.mp4 -q \"Who wins?\" --max-budget 0.05"},
      {"for scripts", "ask clip.mp4 -q \"Is it day or night?\" --json --quiet"},
      {"several questions, the clip is looked at once",
       "ask talk.mp4 -q \"Who speaks?\" -q \"What about?\" -q \"Where?\""},
      {"the next turn of a session", "ask --session sessions/ID -q \"And what happened before?\""},
      {"a follow-up question",
       "ask clip.mp4 --turn \"user: Who is it?\" --turn \"assistant: A cook.\" -q \"What now?\""}};
  spec.max_arguments = -1;
  return spec;
}

CommandSpec EstimateSpec() {
  CommandSpec spec;
  spec.name = "estimate";
  spec.arguments = "[CLIP...] [-q TEXT] [flags]";
  spec.summary = "what a question would cost, without running it";
  spec.description =
      "Says how many frames, tokens, memory and time a question would take, and whether the server "
      "could run it at all. Takes the flags of \"ask\". Exit code 1 if it could not.";
  spec.groups = QuestionFlags();
  spec.groups.push_back({"Upload", {{"upload", "", "upload files even if they are small"}}});
  spec.groups.push_back(OutputFlags());
  spec.groups.push_back(ConnectionFlags());
  spec.examples = {{"how much is an hour at 1 frame a second", "estimate film.mp4 --fps 1"}};
  spec.max_arguments = -1;
  return spec;
}

}  // namespace

std::vector<Command> AskCommands() { return {{AskSpec(), RunAsk}, {EstimateSpec(), RunEstimate}}; }

}  // namespace videonsa::client
