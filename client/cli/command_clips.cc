#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/cli/visuals.h"
#include "client/digest.h"
#include "client/error.h"
#include "client/format.h"
#include "client/json.h"

namespace videonsa::client {
namespace {

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

std::string ClipLine(const proto::Clip& clip) {
  std::string size = "-", length = "-";
  if (clip.has_media()) {
    size = absl::StrCat(clip.media().width(), "x", clip.media().height());
    if (!clip.media().image()) length = HumanDuration(FromProto(clip.media().duration()));
  }
  return absl::StrFormat("%-34s %-9s %9s %11s %9s  %s", clip.name(), StateText(clip.state()),
                         HumanBytes(static_cast<double>(clip.size_bytes())), size, length,
                         PrintableText(clip.display_name()));
}

std::string ClipText(const proto::Clip& clip) {
  std::string out = absl::StrCat(clip.name(), "\n");
  const auto line = [&](const char* key, const std::string& value) {
    if (!value.empty()) absl::StrAppend(&out, absl::StrFormat("  %-9s %s\n", key, value));
  };
  line("state", StateText(clip.state()));
  line("label", PrintableText(clip.display_name()));
  line("size", HumanBytes(static_cast<double>(clip.size_bytes())));
  line("sha256", HexOf(clip.sha256()));
  if (clip.has_media()) {
    const proto::MediaInfo& media = clip.media();
    line("media", absl::StrCat(media.container(), ", ", media.codec(), ", ", media.width(), "×",
                               media.height()));
    if (!media.image()) {
      line("length", absl::StrFormat("%s, %.3g frames/s, %d packets",
                                     HumanDuration(FromProto(media.duration())),
                                     media.average_fps(), media.packet_count()));
    }
  }
  if (clip.has_create_time()) line("created", absl::FormatTime(TimeOf(clip.create_time())));
  if (clip.has_expire_time()) line("expires", absl::FormatTime(TimeOf(clip.expire_time())));
  if (!clip.error_reason().empty()) {
    line("error", PrintableText(absl::StrCat(clip.error_reason(), ": ", clip.error_message())));
  }
  return out;
}

void PrintClip(const CommandContext& context, const proto::Clip& clip) {
  if (context.args.Has("json")) {
    JsonWriter json;
    json.BeginObject().Key("schema").String("videonsa.clip/1").Key("clip").Message(clip);
    context.console.Answer(absl::StrCat(json.EndObject().text(), "\n"));
  } else {
    context.console.Answer(ClipText(clip));
  }
}

int RunUpload(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Minutes(2));
  if (!opened.ok()) return UsageError(context, opened.status());
  UploadOptions options;
  options.display_name = context.args.Get("label");
  options.resume = !context.args.Has("no-resume");
  absl::StatusOr<absl::Duration> ttl = context.args.Time("ttl", absl::ZeroDuration());
  if (!ttl.ok()) return UsageError(context, ttl.status());
  options.ttl = *ttl;
  for (const std::string& path : context.args.arguments()) {
    auto upload = UploadWithProgress(context, *opened, path, options);
    if (!upload.ok()) return Failure(context, upload.status());
    absl::StatusOr<proto::Clip> clip = upload->clip;
    if (!context.args.Has("no-wait")) clip = AwaitReady(context, *opened, upload->clip);
    if (!clip.ok()) return Failure(context, clip.status());
    std::string how = absl::StrCat(HumanBytes(static_cast<double>(upload->sent_bytes)), " sent");
    if (upload->already_stored) how = "already stored, nothing sent";
    if (upload->resumed_at > 0) {
      absl::StrAppend(&how, ", resumed at ", HumanBytes(static_cast<double>(upload->resumed_at)));
    }
    if (upload->cuts > 0) absl::StrAppend(&how, ", ", upload->cuts, " cuts survived");
    context.console.Note(absl::StrCat(path, ": ", how, ", sha256 ", HexOf(upload->sha256)));
    if (context.args.Has("json")) {
      PrintClip(context, *clip);
    } else {
      context.console.Answer(absl::StrCat(clip->name(), "\n"));
    }
  }
  return kExitOk;
}

int RunImport(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Minutes(5));
  if (!opened.ok()) return UsageError(context, opened.status());
  proto::ImportClipRequest request;
  request.set_request_id(RandomUuid());
  request.set_url(context.args.arguments()[0]);
  request.set_display_name(context.args.Get("label"));
  auto clip = opened->client->ImportClip(request, opened->call);
  if (!clip.ok()) return Failure(context, clip.status());
  clip = AwaitReady(context, *opened, *clip);
  if (!clip.ok()) return Failure(context, clip.status());
  if (context.args.Has("json")) {
    PrintClip(context, *clip);
  } else {
    context.console.Answer(absl::StrCat(clip->name(), "\n"));
  }
  return kExitOk;
}

int RunList(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Seconds(30));
  if (!opened.ok()) return UsageError(context, opened.status());
  absl::StatusOr<int64_t> limit = context.args.Integer("limit", 0);
  if (!limit.ok()) return UsageError(context, limit.status());
  auto clips = opened->client->ListClips(static_cast<int>(*limit), opened->call);
  if (!clips.ok()) return Failure(context, clips.status());
  if (context.args.Has("json")) {
    JsonWriter json;
    json.BeginObject().Key("schema").String("videonsa.clips/1").Key("clips").BeginArray();
    for (const proto::Clip& clip : *clips) json.Message(clip);
    context.console.Answer(absl::StrCat(json.EndArray().EndObject().text(), "\n"));
    return kExitOk;
  }
  if (clips->empty()) context.console.Note("no clips");
  for (const proto::Clip& clip : *clips) context.console.Answer(absl::StrCat(ClipLine(clip), "\n"));
  return kExitOk;
}

int RunGet(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Seconds(30));
  if (!opened.ok()) return UsageError(context, opened.status());
  for (const std::string& name : context.args.arguments()) {
    auto clip = opened->client->GetClip(name, opened->call);
    if (!clip.ok()) return Failure(context, clip.status());
    PrintClip(context, *clip);
  }
  return kExitOk;
}

int RunDelete(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Seconds(30));
  if (!opened.ok()) return UsageError(context, opened.status());
  for (const std::string& name : context.args.arguments()) {
    const absl::Status status =
        opened->client->DeleteClip(name, context.args.Has("allow-missing"), opened->call);
    if (!status.ok()) return Failure(context, status);
    context.console.Note(absl::StrCat("deleted ", name));
  }
  return kExitOk;
}

int RunWatch(CommandContext& context) {
  absl::StatusOr<OpenedClient> opened = OpenClient(context, absl::Minutes(10));
  if (!opened.ok()) return UsageError(context, opened.status());
  auto clip = opened->client->WatchClip(
      context.args.arguments()[0],
      [&](const proto::Clip& now) {
        if (!context.args.Has("json")) {
          context.console.Note(absl::StrCat(now.name(), " ", StateText(now.state())));
        }
      },
      opened->call);
  if (!clip.ok()) return Failure(context, clip.status());
  PrintClip(context, *clip);
  return clip->state() == proto::Clip::STATE_READY ? kExitOk : kExitFailed;
}

Command Make(const std::string& name, const std::string& arguments, const std::string& summary,
             std::vector<Flag> flags, int most, int (*run)(CommandContext&)) {
  CommandSpec spec;
  spec.name = name;
  spec.arguments = arguments;
  spec.summary = summary;
  if (!flags.empty()) spec.groups.push_back({"Flags", std::move(flags)});
  spec.groups.push_back(OutputFlags());
  spec.groups.push_back(ConnectionFlags());
  spec.min_arguments = most == 0 ? 0 : 1;
  spec.max_arguments = most;
  return {spec, run};
}

}  // namespace

std::vector<Command> ClipCommands() {
  const Flag label{"label", "TEXT", "name for people (the file's name)"};
  const Flag ttl{"ttl", "TIME", "keep so long after the last use: 2h, 30m"};
  std::vector<Command> commands = {
      Make("upload", "FILE...", "store clips for several questions; resumes after a cut",
           {label,
            ttl,
            {"no-resume", "", "begin afresh even if a part is stored"},
            {"no-wait", "", "do not wait until the clip has been checked"}},
           -1, RunUpload),
      Make("import", "URL", "let the server fetch a clip from an https URL", {label}, 1, RunImport),
      Make("clips list", "", "stored clips, newest first", {{"limit", "N", "at most so many"}}, 0,
           RunList),
      Make("clips get", "clips/ID...", "everything about a stored clip", {}, -1, RunGet),
      Make("clips delete", "clips/ID...", "delete stored clips",
           {{"allow-missing", "", "a missing clip is no error"}}, -1, RunDelete),
      Make("clips watch", "clips/ID", "wait until a clip is ready or has failed", {}, 1, RunWatch)};
  commands[0].spec.description =
      "Stores clips on the server and prints their names. A cut connection or a restart of either "
      "side loses nothing: run the same command again and it goes on where it stopped. Bytes that "
      "are stored already are not sent again.";
  commands[0].spec.examples = {
      {"store two clips", "upload a.mp4 b.mp4 --ttl 2h"},
      {"store and ask", "ask \"$(videonsa upload a.mp4)\" -q \"What is it?\""}};
  return commands;
}

}  // namespace videonsa::client
