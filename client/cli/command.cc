#include "client/cli/command.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/error.h"
#include "client/json.h"

namespace videonsa::client {

FlagGroup ConnectionFlags() {
  return {"Connection",
          {{"server", "ADDR", "server to speak to: host:port or unix:/path (localhost:8090)"},
           {"timeout", "TIME", "give up after this time: 90, 90s, 2m"},
           {"tls", "", "encrypt; trust the system's authorities"},
           {"tls-ca", "FILE", "encrypt; trust the authorities in this PEM file"},
           {"tls-cert", "FILE", "own certificate (PEM), for servers that ask for one"},
           {"tls-key", "FILE", "key of --tls-cert (PEM)"},
           {"token-file", "FILE", "send the token in this file with every call"}}};
}

FlagGroup OutputFlags() {
  return {"Output",
          {{"json", "", "print one JSON object on stdout instead of text, failures too"},
           {"quiet", "", "no progress and no report; errors only"},
           {"color", "WHEN", "auto (on a terminal, unless NO_COLOR is set), always or never"},
           {"help", "", "this text", 'h'}}};
}

absl::StatusOr<OpenedClient> OpenClient(const CommandContext& context,
                                        absl::Duration default_timeout) {
  const ParsedArgs& args = context.args;
  OpenedClient opened;
  if (args.Has("server")) opened.channel.address = args.Get("server");
  if (opened.channel.address.empty()) return absl::InvalidArgumentError("--server is empty");
  opened.channel.tls = args.Has("tls");
  opened.channel.ca_file = args.Get("tls-ca");
  opened.channel.cert_file = args.Get("tls-cert");
  opened.channel.key_file = args.Get("tls-key");
  absl::StatusOr<absl::Duration> timeout = args.Time("timeout", default_timeout);
  if (!timeout.ok()) return timeout.status();
  opened.call.timeout = *timeout;
  opened.call.cancellation = &context.cancellation;
  if (args.Has("token-file")) {
    absl::StatusOr<std::string> token = ReadFile(args.Get("token-file"));
    if (!token.ok()) return token.status();
    opened.call.bearer_token = std::string(absl::StripAsciiWhitespace(*token));
  }
  auto client = VideoNsaClient::Create(opened.channel);
  if (!client.ok()) return client.status();
  opened.client = *std::move(client);
  return opened;
}

int UsageError(const CommandContext& context, const absl::Status& status) {
  context.console.Error(std::string(status.message()));
  return kExitUsage;
}

std::string ErrorJson(const absl::Status& status) {
  const ErrorDetails details = DetailsOf(status);
  JsonWriter json;
  json.BeginObject().Key("schema").String("videonsa.error/1").Key("error").BeginObject();
  json.Key("code").String(CodeName(details.code));
  json.Key("reason").String(details.reason);
  json.Key("message").String(details.message);
  json.Key("metadata").BeginObject();
  for (const auto& [key, value] : details.metadata) json.Key(key).String(value);
  json.EndObject().Key("fields").BeginArray();
  for (const auto& [field, description] : details.fields) {
    json.BeginObject().Key("field").String(field).Key("description").String(description);
    json.EndObject();
  }
  json.EndArray();
  if (!details.resource_name.empty()) json.Key("resource").String(details.resource_name);
  if (details.retry_after) {
    json.Key("retry_after_s").Number(absl::ToDoubleSeconds(*details.retry_after));
  }
  if (!details.request_id.empty()) json.Key("request_id").String(details.request_id);
  return json.EndObject().EndObject().text();
}

int Failure(const CommandContext& context, const absl::Status& status) {
  const bool ours = absl::IsCancelled(status) && context.cancellation.cancelled();
  context.console.Error(ours ? "cancelled" : ErrorText(status));
  // A switch has no value; "bench --json FILE" keeps stdout for its table.
  const bool json = context.args.Has("json") && context.args.Get("json").empty();
  if (json) context.console.Answer(absl::StrCat(ErrorJson(status), "\n"));
  return kExitFailed;
}

}  // namespace videonsa::client
