#include <signal.h>
#include <stdio.h>

#include <string>
#include <vector>

#include "client/openai/front.h"
#include "client/openai/options.h"

namespace videonsa::openai {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

int Fail(int code, const absl::Status& status) {
  fprintf(stderr, "videonsa-openai: %s\n", std::string(status.message()).c_str());
  return code;
}

int Run(const std::vector<std::string>& words) {
  const absl::StatusOr<CommandLine> line = ParseCommandLine(words);
  if (!line.ok()) return Fail(kExitUsage, line.status());
  if (line->help || line->version) {
    const std::string version = "videonsa-openai " VIDEONSA_VERSION "\n";
    fputs(line->help ? HelpText().c_str() : version.c_str(), stdout);
    return kExitOk;
  }
  // Blocked in every thread before the first is made; taken by sigwait below.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  const absl::StatusOr<std::unique_ptr<Front>> front = Front::Start(line->options);
  if (!front.ok()) return Fail(kExitFailed, front.status());
  const std::string& listen = line->options.listen;
  printf("videonsa-openai ready on %s:%d (server %s)\n",
         listen.substr(0, listen.rfind(':')).c_str(), (*front)->port(),
         line->options.server.address.c_str());
  fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  const int cut = (*front)->Drain();
  if (cut > 0) fprintf(stderr, "videonsa-openai: %d answers were cut short\n", cut);
  return kExitOk;
}

}  // namespace
}  // namespace videonsa::openai

int main(int argc, char** argv) { return videonsa::openai::Run({argv + 1, argv + argc}); }
