#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/args.h"
#include "client/cli/console.h"
#include "client/client.h"

namespace videonsa::client {

/// Exit codes of the command.
enum ExitCode { kExitOk = 0, kExitFailed = 1, kExitUsage = 2 };

/// What a command works with.
struct CommandContext {
  Console& console;
  const ParsedArgs& args;
  /// Fired by Ctrl-C.
  Cancellation& cancellation;
};

/// A command: how it is called and what it does. `run` returns an ExitCode.
struct Command {
  CommandSpec spec;
  std::function<int(CommandContext&)> run;
};

/// A client with the call options that its flags ask for.
struct OpenedClient {
  std::unique_ptr<VideoNsaClient> client;
  ChannelOptions channel;
  CallOptions call;
};

/// Flags that every command which speaks to a server takes.
FlagGroup ConnectionFlags();

/// Reads the connection flags. `default_timeout` holds unless --timeout is given.
/// Errors: INVALID_ARGUMENT for bad flags (usage), unreadable files.
absl::StatusOr<OpenedClient> OpenClient(const CommandContext& context,
                                        absl::Duration default_timeout);

/// Prints a usage error and returns kExitUsage.
int UsageError(const CommandContext& context, const absl::Status& status);

/// Prints a failure with its typed reason, on stderr and, with --json, as an object on stdout too;
/// returns kExitFailed.
int Failure(const CommandContext& context, const absl::Status& status);

/// {"schema": ..., "error": {code, reason, message, metadata, ...}} as text.
std::string ErrorJson(const absl::Status& status);

/// --json and the like.
FlagGroup OutputFlags();

std::vector<Command> AskCommands();
std::vector<Command> BenchCommands();
std::vector<Command> ClipCommands();
std::vector<Command> EvalCommands();
std::vector<Command> ServerCommands();
std::vector<Command> SessionCommands();
/// "ask" with several questions: AskMany; see command_session.cc.
int RunAskMany(CommandContext& context);

}  // namespace videonsa::client
