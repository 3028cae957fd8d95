#include "server/run_server.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "runtime/base/error.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/metrics.h"
#include "server/command_line.h"
#include "server/library_logs.h"
#include "server/listen_address.h"
#include "server/result_conversion.h"
#include "server/videonsa_server.h"

namespace videonsa {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitModel = 3;
constexpr int kExitAddress = 4;
constexpr int kExitClipDir = 5;
constexpr rlim_t kMostFiles = 65536;
constexpr absl::Duration kFailurePoll = absl::Milliseconds(200);

// Says on stderr, for people, why the server does not start.
int Fail(int code, const std::string& what, const absl::Status& status) {
  const std::optional<ErrorInfo> info = GetErrorInfo(status);
  fprintf(stderr, "videonsa-server: %s: %s (%s)\n", what.c_str(),
          std::string(status.message()).c_str(),
          info ? info->reason.c_str() : absl::StatusCodeToString(status.code()).c_str());
  return code;
}

void PrintReady(const VideonsaServer& server, const ServerOptions& options,
                const ModelFacts& model) {
  std::string line =
      absl::StrCat("videonsa-server ready on ", BoundAddress(options.listen, server.port()), " (");
  const auto append = [&line](const char* what, const std::string& address, int port) {
    if (port != 0) absl::StrAppend(&line, what, " on ", BoundAddress(address, port), ", ");
  };
  append("metrics", options.metrics_listen, server.metrics_port());
  append("admin", options.admin_listen, server.admin_port());
  append("health", options.health_listen, server.health_port());
  absl::StrAppend(&line, "model ", model.name, ", ", model.compute_type, " on ", model.device, ", ",
                  SemanticsName(model.semantics), model.random_weights ? ", random weights" : "",
                  ")");
  printf("%s\n", line.c_str());
  fflush(stdout);
}

// Waits for signals: the first ends the serving, the second hurries the drain. SIGTERM comes from a
// supervisor, which wants the grace; SIGINT from a person, who does not. SIGHUP asks for the
// configuration to be read again.
class SignalThread {
 public:
  explicit SignalThread(const sigset_t& signals) : thread_([this, signals] { Run(signals); }) {}
  ~SignalThread() {
    // Ends the wait; blocked in every thread, so only sigwait sees it.
    pthread_kill(thread_.native_handle(), SIGUSR2);
    thread_.join();
  }

  absl::Notification stop;
  absl::Notification hurry;
  bool interactive = false;  // set before `stop`
  std::atomic<bool> reload{false};

 private:
  void Run(const sigset_t& signals) {
    int signal = 0;
    while (sigwait(&signals, &signal) == 0 && signal != SIGUSR2) {
      if (signal == SIGHUP) {
        reload = true;
      } else if (!stop.HasBeenNotified()) {
        interactive = signal == SIGINT;
        stop.Notify();
      } else if (!hurry.HasBeenNotified()) {
        hurry.Notify();
      }
    }
  }

  std::thread thread_;  // last: uses what is above
};

// Reads the configuration again. A bad one changes nothing.
void Reload(VideonsaServer& server, const std::vector<std::string>& arguments,
            ServerOptions& running) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(arguments);
  absl::Status status = line.status();
  if (status.ok()) {
    ResolvePaths(line->options);
    status = CheckOptions(line->options);
  }
  if (!status.ok()) {
    Log(LogLevel::kError, "configuration refused, the old one stays", {{"why", status.message()}});
    return;
  }
  OptionChanges changes = ChangesOf(running, line->options);
  running = std::move(changes.options);
  server.Reconfigure(running);
  Log(LogLevel::kInfo, "configuration reloaded",
      {{"taken", absl::StrJoin(changes.taken, ",")},
       {"need_a_new_start", absl::StrJoin(changes.waiting, ",")}});
}

// Waits for a signal and drains. A lost device ends the process instead: what it left behind cannot
// be trusted, and a supervisor restarts it.
int ServeUntilStopped(VideonsaServer& server, const std::vector<std::string>& arguments,
                      ServerOptions options, SignalThread& signals) {
  while (!signals.stop.WaitForNotificationWithTimeout(kFailurePoll)) {
    if (server.core().state() == ServerState::kFailed) return kExitFailed;
    if (signals.reload.exchange(false)) Reload(server, arguments, options);
  }
  const absl::Duration grace = signals.interactive ? absl::ZeroDuration() : options.drain_grace;
  const int cut = server.Drain(grace, options.drain_timeout, &signals.hurry);
  Log(LogLevel::kInfo, "drained", {{"questions_cut_short", cut}});
  return kExitOk;
}

// Every connection takes a descriptor, and the usual soft limit is for programs that use select.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::max(limit.rlim_cur, std::min<rlim_t>(limit.rlim_max, kMostFiles));
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Serve(const ServerOptions& options, const std::vector<std::string>& arguments,
          const RuntimeFactory& create, SignalThread& signals) {
  MetricsRegistry metrics;
  CountLogMessages(&metrics);
  const Clock& clock = Clock::Real();
  absl::StatusOr<std::unique_ptr<VideonsaServer>> server =
      VideonsaServer::Start(options, clock, metrics);
  if (!server.ok()) {
    CountLogMessages(nullptr);
    const std::optional<ErrorInfo> info = GetErrorInfo(server.status());
    const std::string reason = info ? info->reason : "";
    const bool usage = reason == "ACCESS_FILE_INVALID" || reason == "TLS_FILE_INVALID" ||
                       reason == "FILE_UNREADABLE";
    const int code = reason == "ADDRESS_IN_USE" ? kExitAddress : usage ? kExitUsage : kExitClipDir;
    return Fail(code, "cannot start", server.status());
  }
  absl::StatusOr<std::unique_ptr<Runtime>> runtime = create(options.runtime, clock, metrics);
  int code = kExitOk;
  if (runtime.ok()) {
    const ModelFacts model = (*runtime)->model();
    (*server)->Serve(*std::move(runtime));
    PrintReady(**server, options, model);
    code = ServeUntilStopped(**server, arguments, options, signals);
  } else {
    code = Fail(kExitModel,
                absl::StrCat("the model in ", options.runtime.model_dir, " cannot be loaded"),
                runtime.status());
  }
  server->reset();
  CountLogMessages(nullptr);
  return code;
}

}  // namespace

int RunServer(const std::vector<std::string>& arguments, const RuntimeFactory& create) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(arguments);
  if (!line.ok()) return Fail(kExitUsage, "wrong usage", line.status());
  if (line->help) {
    fputs(HelpText().c_str(), stdout);
    return kExitOk;
  }
  if (line->version) {
    printf("videonsa-server %s\n", ServerVersion().c_str());
    return kExitOk;
  }
  if (line->print_options) {
    fputs(OptionsMarkdown().c_str(), stdout);
    return kExitOk;
  }
  ResolvePaths(line->options);
  const absl::Status checked = CheckOptions(line->options);
  if (!checked.ok()) return Fail(kExitUsage, "wrong configuration", checked);
  if (line->check_config) {
    printf("the configuration is good\n");
    return kExitOk;
  }
  SetLogLevel(line->options.log_level);
  RouteLibraryLogs();
  RaiseFileLimit();
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  SignalThread waiter(signals);
  return Serve(line->options, arguments, create, waiter);
}

}  // namespace videonsa
