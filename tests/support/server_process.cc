#include "tests/support/server_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

extern char** environ;

namespace videonsa::testing {
namespace {

// The word after `key` in `text`, up to white space.
std::string WordAfter(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  if (at == std::string::npos) return "";
  const size_t begin = at + key.size();
  const size_t end = text.find_first_of(" \n,)", begin);
  return end == std::string::npos ? "" : text.substr(begin, end - begin);
}

int64_t ResidentBytesOf(pid_t pid) {
  std::ifstream statm(absl::StrCat("/proc/", pid, "/statm"));
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace

absl::Status ServerProcess::Start(const Options& options, std::unique_ptr<ServerProcess>& out,
                                  absl::Duration timeout) {
  std::vector<std::string> args = {options.binary,     "--listen",
                                   "127.0.0.1:0",      "--metrics-listen",
                                   "127.0.0.1:0",      "--admin-listen",
                                   "127.0.0.1:0",      "--clip-dir",
                                   options.clip_dir};
  if (!options.model_dir.empty()) {
    args.push_back("--model");
    args.push_back(options.model_dir);
  }
  args.insert(args.end(), options.extra_flags.begin(), options.extra_flags.end());
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return absl::InternalError("pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO,
                                   absl::StrCat(options.clip_dir, "/../server.log").c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
  std::unique_ptr<ServerProcess> server(new ServerProcess);
  const int error =
      posix_spawn(&server->pid_, options.binary.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(fds[1]);
  server->out_fd_ = fds[0];
  if (error != 0) return absl::InternalError(absl::StrCat(options.binary, ": error ", error));
  std::string text;
  const absl::Time deadline = absl::Now() + timeout;
  while (absl::Now() < deadline) {
    pollfd poll_fd{server->out_fd_, POLLIN, 0};
    if (poll(&poll_fd, 1, 100) <= 0) continue;
    char buffer[4096];
    const ssize_t got = read(server->out_fd_, buffer, sizeof(buffer));
    if (got <= 0) return absl::UnavailableError("the server ended: " + text);
    text.append(buffer, got);
    if (text.find("ready on ") == std::string::npos || text.back() != '\n') continue;
    server->address_ = WordAfter(text, "ready on ");
    server->metrics_address_ = WordAfter(text, "metrics on ");
    out = std::move(server);
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError("not ready: " + text);
}

ServerProcess::~ServerProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (out_fd_ >= 0) close(out_fd_);
}

void ServerProcess::Signal(int signal) {
  kill(pid_, signal);
  if (signal == SIGKILL) {
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

int ServerProcess::Wait() {
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::vector<pid_t> ServerProcess::Children() const {
  std::vector<pid_t> children;
  for (const auto& task :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", pid_, "/task"))) {
    std::ifstream file(task.path() / "children");
    pid_t child = 0;
    while (file >> child) children.push_back(child);
  }
  return children;
}

int64_t ServerProcess::ResidentBytes() const {
  int64_t sum = ResidentBytesOf(pid_);
  for (const pid_t child : Children()) sum += ResidentBytesOf(child);
  return sum;
}

int ServerProcess::OpenFiles() const {
  int count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", pid_, "/fd"))) {
    ++count;
  }
  return count;
}

}  // namespace videonsa::testing
