// Sessions, and several questions about the same clips.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cli/command.h"
#include "client/cli/question_flags.h"
#include "client/cli/visuals.h"
#include "client/digest.h"
#include "client/error.h"
#include "client/format.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

constexpr absl::Duration kShortCall = absl::Seconds(20);

// What the command line shows: clips and pictures with their sampling, delivered to the server.
struct Shown {
  OpenedClient opened;
  std::vector<proto::Part> parts;
};

absl::StatusOr<Shown> Show(CommandContext& context, int* usage) {
  *usage = kExitUsage;
  Shown shown;
  auto visuals = VisualsOf(context.args);
  if (!visuals.ok()) return visuals.status();
  auto sampling = SamplingOf(context.args);
  if (!sampling.ok()) return sampling.status();
  auto opened = OpenClient(context, absl::InfiniteDuration());
  if (!opened.ok()) return opened.status();
  shown.opened = *std::move(opened);
  *usage = kExitFailed;
  auto parts = DeliverVisuals(context, shown.opened, *visuals,
                              {.sampling = *sampling, .always_upload = context.args.Has("upload")});
  if (!parts.ok()) return parts.status();
  shown.parts = *std::move(parts);
  return shown;
}

int Ended(CommandContext& context, const absl::Status& status, int code) {
  return code == kExitUsage ? UsageError(context, status) : Failure(context, status);
}

template <typename Message>
void PrintJson(CommandContext& context, const char* schema, const char* key,
               const Message& message) {
  JsonWriter json;
  json.BeginObject().Key("schema").String(schema);
  json.Key(key).Message(message).EndObject();
  context.console.Answer(absl::StrCat(json.text(), "\n"));
}

std::string TokensText(const proto::PromptTokens& prompt) {
  return absl::StrCat(Grouped(prompt.vision() + prompt.text()), " tokens (",
                      Grouped(prompt.vision()), " vision)");
}

int RunCreate(CommandContext& context) {
  proto::Question settings;
  if (absl::Status status = ApplySettings(context.args, settings); !status.ok()) {
    return UsageError(context, status);
  }
  const auto ttl = context.args.Time("ttl", absl::ZeroDuration());
  if (!ttl.ok()) return UsageError(context, ttl.status());
  int code = 0;
  auto shown = Show(context, &code);
  if (!shown.ok()) return Ended(context, shown.status(), code);
  proto::CreateSessionRequest request;
  request.set_request_id(RandomUuid());
  request.set_system_instruction(context.args.Get("system"));
  proto::Turn& turn = *request.add_turns();
  turn.set_role(proto::Turn::ROLE_USER);
  for (const proto::Part& part : shown->parts) *turn.add_parts() = part;
  if (settings.attention().ByteSizeLong() > 0) {
    *request.mutable_attention() = settings.attention();
  }
  request.set_priority(settings.priority());
  if (context.args.Has("ttl")) *request.mutable_ttl() = ToProto(*ttl);
  context.console.Status("looking at the clips ...", true);
  const auto session = shown->opened.client->CreateSession(request, shown->opened.call);
  context.console.ClearStatus();
  if (!session.ok()) return Failure(context, session.status());
  if (context.args.Has("json")) {
    PrintJson(context, "videonsa.session/1", "session", *session);
    return kExitOk;
  }
  context.console.Answer(absl::StrCat(session->session(), "\n"));
  context.console.Note(absl::StrCat(TokensText(session->prompt()), ", ",
                                    Grouped(session->kv_pages()), " pages kept\n"));
  return kExitOk;
}

int RunAppend(CommandContext& context) {
  const std::string name = context.args.Get("session");
  if (name.empty()) {
    return UsageError(context, absl::InvalidArgumentError("no session; add --session sessions/ID"));
  }
  int code = 0;
  auto shown = Show(context, &code);
  if (!shown.ok()) return Ended(context, shown.status(), code);
  proto::AppendToSessionRequest request;
  request.set_session(name);
  for (const proto::Part& part : shown->parts) *request.add_parts() = part;
  context.console.Status("looking at the clips ...", true);
  const auto appended = shown->opened.client->AppendToSession(request, shown->opened.call);
  context.console.ClearStatus();
  if (!appended.ok()) return Failure(context, appended.status());
  if (context.args.Has("json")) {
    PrintJson(context, "videonsa.session/1", "session", *appended);
  } else {
    context.console.Answer(absl::StrCat(TokensText(appended->prompt()), ", ",
                                        Grouped(appended->kv_pages()), " pages kept\n"));
  }
  return kExitOk;
}

int RunShow(CommandContext& context) {
  auto opened = OpenClient(context, kShortCall);
  if (!opened.ok()) return UsageError(context, opened.status());
  const auto session = opened->client->GetSession(context.args.arguments().front(), opened->call);
  if (!session.ok()) return Failure(context, session.status());
  if (context.args.Has("json")) {
    PrintJson(context, "videonsa.session/1", "session", *session);
    return kExitOk;
  }
  const absl::Duration left = absl::FromUnixSeconds(session->expire_time().seconds()) - absl::Now();
  context.console.Answer(absl::StrCat(
      "turns      ", session->turns(), session->busy() ? ", one more is being answered" : "",
      "\nclips      ", session->visuals(), "\ntokens     ", TokensText(session->prompt()),
      "\nkept       ", Grouped(session->kv_pages()), " pages\nattention  ", session->semantics(),
      session->appendable() ? ", clips may be appended" : ", nothing may be appended",
      "\nexpires    in ", HumanDuration(left), " without use\n"));
  return kExitOk;
}

int RunDelete(CommandContext& context) {
  auto opened = OpenClient(context, kShortCall);
  if (!opened.ok()) return UsageError(context, opened.status());
  for (const std::string& name : context.args.arguments()) {
    const absl::Status status = opened->client->DeleteSession(name, opened->call);
    if (!status.ok()) return Failure(context, status);
  }
  return kExitOk;
}

// The flags of `ask` that say what is shown and how.
std::vector<FlagGroup> ShowFlags(bool attention) {
  std::vector<FlagGroup> groups;
  for (FlagGroup& group : QuestionFlags()) {
    if (group.title == "Question") {
      std::erase_if(group.flags, [attention](const Flag& flag) {
        return flag.name != "image" && !(attention && flag.name == "system");
      });
    } else if (group.title == "Answer") {
      std::erase_if(group.flags, [](const Flag& flag) { return flag.name != "priority"; });
      if (!attention) continue;
    } else if (group.title == "Attention" && !attention) {
      continue;
    }
    groups.push_back(std::move(group));
  }
  groups.push_back({"Upload", {{"upload", "", "upload files even if they are small"}}});
  return groups;
}

void AddCommonFlags(CommandSpec& spec) {
  spec.groups.push_back(OutputFlags());
  spec.groups.push_back(ConnectionFlags());
}

CommandSpec CreateSpec() {
  CommandSpec spec;
  spec.name = "session create";
  spec.arguments = "CLIP... [flags]";
  spec.summary = "look at clips once, for several questions";
  spec.description =
      "Shows clips to the model and keeps what it has seen, so that later questions need not wait "
      "for it. Prints the session's name, for \"ask --session\". A session ends when it was not "
      "used for its time to live; answers never depend on what is still kept.";
  spec.groups = ShowFlags(true);
  spec.groups.push_back(
      {"Session", {{"ttl", "TIME", "end after this time without use: 90, 90s, 2m"}}});
  AddCommonFlags(spec);
  spec.examples = {{"a talk, then questions", "session create talk.mp4 --fps 1"}};
  spec.min_arguments = 1;
  spec.max_arguments = -1;
  return spec;
}

CommandSpec AppendSpec() {
  CommandSpec spec;
  spec.name = "session append";
  spec.arguments = "--session NAME CLIP... [flags]";
  spec.summary = "show more clips to a session";
  spec.description =
      "Shows more clips to a session. Answers are those of a question that shows all clips; with "
      "released_nsa attention, where earlier frames look at later ones, the server refuses.";
  spec.groups = ShowFlags(false);
  spec.groups.push_back({"Session", {{"session", "NAME", "sessions/ID"}}});
  AddCommonFlags(spec);
  spec.examples = {
      {"the next ten seconds", "session append --session sessions/ID camera.mp4 --range 10s-20s"}};
  spec.min_arguments = 1;
  spec.max_arguments = -1;
  return spec;
}

CommandSpec NamedSpec(const char* verb, const char* summary, int most) {
  CommandSpec spec;
  spec.name = absl::StrCat("session ", verb);
  spec.arguments = most == 1 ? "NAME" : "NAME...";
  spec.summary = summary;
  AddCommonFlags(spec);
  spec.min_arguments = 1;
  spec.max_arguments = most;
  return spec;
}

std::string ManyJson(const std::vector<proto::AskManyResponse>& answers) {
  JsonWriter json;
  json.BeginObject().Key("schema").String("videonsa.ask_many/1").Key("answers").BeginArray();
  for (const proto::AskManyResponse& answer : answers) json.Message(answer);
  return json.EndArray().EndObject().text();
}

void PrintAnswer(CommandContext& context, const std::vector<std::string>& questions,
                 const proto::AskManyResponse& answer) {
  Console& console = context.console;
  const auto index = static_cast<size_t>(answer.question_index());
  if (index < questions.size()) {
    console.Note(absl::StrCat(console.Paint(Style::kDim, PrintableText(questions[index])), "\n"));
  }
  if (answer.has_error()) {
    console.Error(absl::StrCat(answer.error().reason(), ": ", answer.error().message()));
  } else {
    console.Answer(absl::StrCat(answer.result().text(), "\n"));
  }
}

}  // namespace

int RunAskMany(CommandContext& context) {
  const std::vector<std::string> questions = context.args.All("question");
  for (const std::string& question : questions) {
    if (question.empty() || question == "-" || !IsUtf8(question)) {
      return UsageError(context, absl::InvalidArgumentError(
                                     "with several questions each must be text on the command "
                                     "line"));
    }
  }
  if (context.args.Has("report") || context.args.Has("turn")) {
    return UsageError(context,
                      absl::InvalidArgumentError("--report and --turn go with one question"));
  }
  proto::AskManyRequest request;
  proto::Question& shared = *request.mutable_shared();
  if (absl::Status status = ApplySettings(context.args, shared); !status.ok()) {
    return UsageError(context, status);
  }
  int code = 0;
  auto shown = Show(context, &code);
  if (!shown.ok()) return Ended(context, shown.status(), code);
  request.set_request_id(RandomUuid());
  shared.set_system_instruction(context.args.Get("system"));
  shared.set_session(context.args.Get("session"));
  if (!shown->parts.empty()) {
    proto::Turn& turn = *shared.add_turns();
    turn.set_role(proto::Turn::ROLE_USER);
    for (const proto::Part& part : shown->parts) *turn.add_parts() = part;
  }
  for (const std::string& question : questions) request.add_questions(question);
  std::vector<proto::AskManyResponse> answers;
  context.console.Status("asking ...", true);
  const absl::Status status = shown->opened.client->AskMany(
      request,
      [&](const proto::AskManyResponse& answer) {
        context.console.ClearStatus();
        if (!context.args.Has("json")) PrintAnswer(context, questions, answer);
        answers.push_back(answer);
      },
      shown->opened.call);
  context.console.ClearStatus();
  if (!status.ok()) return Failure(context, status);
  std::sort(answers.begin(), answers.end(),
            [](const auto& a, const auto& b) { return a.question_index() < b.question_index(); });
  if (context.args.Has("json")) context.console.Answer(absl::StrCat(ManyJson(answers), "\n"));
  const auto failed = [](const auto& answer) { return answer.has_error(); };
  return std::any_of(answers.begin(), answers.end(), failed) ? kExitFailed : kExitOk;
}

std::vector<Command> SessionCommands() {
  return {{CreateSpec(), RunCreate},
          {AppendSpec(), RunAppend},
          {NamedSpec("show", "what a session holds", 1), RunShow},
          {NamedSpec("delete", "end sessions", -1), RunDelete}};
}

}  // namespace videonsa::client
