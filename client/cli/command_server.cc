#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/cli/command.h"
#include "client/error.h"
#include "client/format.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

void PrintMessage(const CommandContext& context, const char* schema, const char* key,
                  const google::protobuf::Message& message) {
  JsonWriter json;
  json.BeginObject().Key("schema").String(schema).Key(key).Message(message).EndObject();
  context.console.Answer(absl::StrCat(json.text(), "\n"));
}

class Table {
 public:
  void Row(const char* key, const std::string& value) {
    if (!value.empty()) absl::StrAppend(&text_, absl::StrFormat("%-11s %s\n", key, value));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string ModelText(const proto::ModelInfo& model) {
  Table table;
  table.Row("model", absl::StrCat(PrintableText(model.name()),
                                  model.random_weights() ? " (random weights)" : ""));
  table.Row("weights", model.weights_digest());
  table.Row("shape", absl::StrFormat("%d layers, %d query heads, %d key-value heads, %s, %s words",
                                     model.layers(), model.heads(), model.kv_heads(), model.dtype(),
                                     Grouped(model.vocab_size())));
  table.Row("context", absl::StrCat(Grouped(model.max_context_tokens()), " tokens"));
  const proto::SparseAttentionInfo& sparse = model.sparse_attention();
  std::string attention = model.attention_semantics();
  if (sparse.selected_blocks() > 0) {
    absl::StrAppend(&attention, ", ", sparse.selected_blocks(), " blocks of ",
                    sparse.block_tokens(), ", window ", sparse.window_tokens());
  }
  table.Row("attention", attention);
  const std::string mode = proto::PreprocessMode_Name(model.preprocess_mode());
  table.Row("frames",
            absl::StrFormat("%s, %.3g/s, at most %d",
                            absl::AsciiStrToLower(absl::StripPrefix(mode, "PREPROCESS_MODE_")),
                            model.default_fps(), model.limits().max_frames()));
  const proto::Limits& limits = model.limits();
  const absl::Duration longest = FromProto(limits.max_clip_duration());
  table.Row(
      "clips",
      absl::StrCat("at most ", HumanBytes(static_cast<double>(limits.max_clip_bytes())),
                   longest > absl::ZeroDuration() ? ", " + HumanDuration(longest) : "", ", inline ",
                   HumanBytes(static_cast<double>(limits.max_inline_clip_bytes())), ", ",
                   limits.max_clips_per_question(), " a question"));
  table.Row("containers", absl::StrJoin(limits.containers(), " "));
  table.Row("codecs", absl::StrJoin(limits.codecs(), " "));
  table.Row("answers", absl::StrCat("at most ", Grouped(limits.max_output_tokens()), " tokens"));
  return table.text();
}

int RunModel(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Seconds(10));
  if (!opened.ok()) return UsageError(context, opened.status());
  auto model = opened->client->GetModel(opened->call);
  if (!model.ok()) return Failure(context, model.status());
  if (context.args.Has("json")) {
    PrintMessage(context, "videonsa.model/1", "model", *model);
  } else {
    context.console.Answer(ModelText(*model));
  }
  return kExitOk;
}

std::string StatusText(const proto::GetServerStatusResponse& status, const Painter& painter) {
  Table table;
  const std::string state = proto::GetServerStatusResponse::State_Name(status.state());
  const bool ready = status.state() == proto::GetServerStatusResponse::STATE_READY;
  table.Row("state", painter.Paint(ready ? Style::kGreen : Style::kYellow,
                                   absl::AsciiStrToLower(absl::StripPrefix(state, "STATE_"))));
  table.Row("message", PrintableText(status.message()));
  table.Row("version",
            absl::StrCat(status.version(), status.commit().empty() ? "" : " ", status.commit()));
  if (status.has_start_time()) {
    table.Row("up",
              HumanDuration(absl::Now() - absl::FromUnixSeconds(status.start_time().seconds())));
  }
  table.Row("requests", absl::StrCat(status.running(), " running, ", status.waiting(), " waiting"));
  if (status.preemptions() > 0) {
    table.Row("preempted", absl::StrCat(Grouped(status.preemptions()),
                                        " times for a higher priority, since start"));
  }
  if (status.workers() > 1 || status.workers_serving() < status.workers()) {
    table.Row("workers",
              absl::StrCat(status.workers_serving(), " of ", status.workers(), " serving"));
  }
  if (status.kv_pages_total() > 0) {
    table.Row("pages", absl::StrCat(Grouped(status.kv_pages_used()), " of ",
                                    Grouped(status.kv_pages_total()), " used  ",
                                    painter.Bar(static_cast<double>(status.kv_pages_used()) /
                                                    status.kv_pages_total(),
                                                20)));
  }
  if (status.resident_bytes() > 0) {
    table.Row("memory", HumanBytes(static_cast<double>(status.resident_bytes())));
  }
  table.Row("decoders", absl::StrCat(status.decoder_processes()));
  if (status.cost_model().steps() > 0) {
    table.Row("predicted", absl::StrFormat("steps to within %.0f %% of %s (mean of recent ones)",
                                           100 * status.cost_model().error_ratio(),
                                           Grouped(status.cost_model().steps())));
  }
  if (!status.cost_model().description().empty()) {
    table.Row("cost model", PrintableText(status.cost_model().description()));
  }
  for (const proto::Device& device : status.devices()) {
    std::string memory;
    if (device.memory_total_bytes() > 0) {
      memory = absl::StrCat(", ", HumanBytes(device.memory_total_bytes()));
    }
    table.Row(absl::StrCat("device ", device.index()).c_str(), absl::StrCat(device.name(), memory));
  }
  return table.text();
}

int RunStatus(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Seconds(10));
  if (!opened.ok()) return UsageError(context, opened.status());
  auto status = opened->client->GetServerStatus(opened->call);
  if (!status.ok()) return Failure(context, status.status());
  if (context.args.Has("json")) {
    PrintMessage(context, "videonsa.status/1", "status", *status);
  } else {
    const Painter painter(context.console.options().colour &&
                          context.console.options().stdout_is_terminal);
    // Bars and colours are our own, so PrintableText has been applied by field.
    const std::string text = StatusText(*status, painter);
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
  return kExitOk;
}

int RunHealth(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Seconds(5));
  if (!opened.ok()) return UsageError(context, opened.status());
  auto serving = opened->client->CheckHealth(context.args.Get("service"), opened->call);
  if (!serving.ok()) return Failure(context, serving.status());
  context.console.Answer(*serving ? "serving\n" : "not serving\n");
  return *serving ? kExitOk : kExitFailed;
}

int RunDrain(CommandContext& context) {
  absl::StatusOr<absl::Duration> wait = context.args.Time("wait", absl::Seconds(30));
  if (!wait.ok()) return UsageError(context, wait.status());
  absl::StatusOr<OpenedClient> opened = OpenClient(context, *wait + absl::Seconds(10));
  if (!opened.ok()) return UsageError(context, opened.status());
  auto remaining = opened->client->Drain(*wait, opened->call);
  if (!remaining.ok()) return Failure(context, remaining.status());
  context.console.Answer(*remaining == 0 ? std::string("drained\n")
                                         : absl::StrCat(*remaining, " still running\n"));
  return *remaining == 0 ? kExitOk : kExitFailed;
}

Command Make(const std::string& name, const std::string& summary, std::vector<Flag> flags,
             int (*run)(CommandContext&)) {
  CommandSpec spec;
  spec.name = name;
  spec.summary = summary;
  if (!flags.empty()) spec.groups.push_back({"Flags", std::move(flags)});
  spec.groups.push_back(OutputFlags());
  spec.groups.push_back(ConnectionFlags());
  return {spec, run};
}

}  // namespace

std::vector<Command> ServerCommands() {
  return {Make("model", "the model that answers, and its limits", {}, RunModel),
          Make("status", "state and load of the server", {}, RunStatus),
          Make("health", "exit code 0 if the server is serving (for container checks)",
               {{"service", "NAME", "what to ask about: liveness, readiness (all)"}}, RunHealth),
          Make("drain", "stop taking new work and wait for the old (admin listener)",
               {{"wait", "TIME", "how long to wait (30s)"}}, RunDrain)};
}

}  // namespace videonsa::client
