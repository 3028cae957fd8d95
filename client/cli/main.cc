#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"

namespace videonsa::client {
namespace {

constexpr char kVersion[] = VIDEONSA_VERSION;
constexpr int kInterrupted = 130;

std::vector<Command> AllCommands() {
  std::vector<Command> commands;
  for (auto* make :
       {AskCommands, SessionCommands, ClipCommands, ServerCommands, BenchCommands, EvalCommands}) {
    for (Command& command : make()) commands.push_back(std::move(command));
  }
  return commands;
}

std::string Overview(const std::vector<Command>& commands) {
  std::string out =
      "videonsa asks questions about videos.\n\n"
      "  videonsa ask clip.mp4 -q \"What happens in this clip?\"\n\nCommands:\n";
  for (const Command& command : commands) {
    absl::StrAppend(&out, absl::StrFormat("  %-13s %s\n", command.spec.name, command.spec.summary));
  }
  return absl::StrCat(
      out,
      "\nvideonsa COMMAND --help tells the flags of a command, with examples.\n"
      "The server is found at localhost:8090 unless --server ADDR says otherwise.\n"
      "Exit codes: 0 done, 1 refused or failed (reason on stderr), 2 wrong usage.\n");
}

// The command that `words` start with (one or two words), or null.
const Command* FindCommand(const std::vector<Command>& commands,
                           const std::vector<std::string>& words, size_t* used) {
  for (size_t length = std::min<size_t>(2, words.size()); length > 0; --length) {
    const std::string name =
        absl::StrJoin(words.begin(), words.begin() + static_cast<int64_t>(length), " ");
    for (const Command& command : commands) {
      if (command.spec.name != name) continue;
      *used = length;
      return &command;
    }
  }
  return nullptr;
}

int UnknownCommand(Console& console, const std::vector<Command>& commands,
                   const std::vector<std::string>& words) {
  std::vector<std::string> names;
  std::string group;
  for (const Command& command : commands) {
    names.push_back(command.spec.name);
    if (command.spec.name.rfind(words[0] + " ", 0) == 0) {
      absl::StrAppend(&group, group.empty() ? "" : ", ", command.spec.name);
    }
  }
  const std::string near = Nearest(words[0], names);
  console.Error(absl::StrCat("unknown command \"",
                             absl::StrJoin(words.begin(), words.begin() + 1, " "), "\"",
                             !group.empty() ? absl::StrCat("; there is ", group)
                             : near.empty() ? "; videonsa help lists them all"
                                            : absl::StrCat("; did you mean ", near, "?")));
  return kExitUsage;
}

// Ctrl-C cancels what runs, a second one ends the process at once.
void WatchSignals(Cancellation& cancellation) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals, &cancellation] {
    int signal = 0;
    sigwait(&signals, &signal);
    cancellation.Cancel();
    sigwait(&signals, &signal);
    _exit(kInterrupted);
  }).detach();
}

std::string ColourChoice(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--color" && i + 1 < words.size()) return words[i + 1];
    if (words[i].rfind("--color=", 0) == 0) return words[i].substr(8);
  }
  return "auto";
}

int Run(std::vector<std::string> words, const char* const* environment) {
  ConsoleOptions options = DetectConsole(ColourChoice(words), environment);
  options.quiet = std::find(words.begin(), words.end(), "--quiet") != words.end();
  Console console(options);
  const std::vector<Command> commands = AllCommands();
  if (words.empty()) {
    console.Error("no command\n\n" + Overview(commands));
    return kExitUsage;
  }
  bool help = false;
  if (words[0] == "help" || words[0] == "--help" || words[0] == "-h") {
    words.erase(words.begin());
    help = true;
  } else if (words[0] == "--version" || words[0] == "version") {
    console.Answer(absl::StrCat("videonsa ", kVersion, "\n"));
    return kExitOk;
  }
  if (help && words.empty()) {
    console.Answer(Overview(commands));
    return kExitOk;
  }
  size_t used = 0;
  const Command* command = FindCommand(commands, words, &used);
  if (command == nullptr) return UnknownCommand(console, commands, words);
  words.erase(words.begin(), words.begin() + static_cast<int64_t>(used));
  absl::StatusOr<ParsedArgs> args = ParseArgs(command->spec, words);
  if (help || (args.ok() && args->Has("help"))) {
    console.Answer(HelpText(command->spec, options.columns));
    return kExitOk;
  }
  if (!args.ok()) {
    console.Error(std::string(args.status().message()));
    console.Note(absl::StrCat("videonsa ", command->spec.name, " --help tells more"));
    return kExitUsage;
  }
  // Lives until the process ends: the signal thread refers to it.
  static Cancellation cancellation;
  WatchSignals(cancellation);
  CommandContext context{console, *args, cancellation};
  return command->run(context);
}

}  // namespace
}  // namespace videonsa::client

int main(int argc, char** argv, char** environment) {
  return videonsa::client::Run(std::vector<std::string>(argv + 1, argv + argc), environment);
}
