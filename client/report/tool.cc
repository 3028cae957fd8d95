#include "client/report/tool.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

extern char** environ;

namespace videonsa::client {
namespace {

// Reads to the end of the pipe; false when time or room ran out first.
absl::Status ReadAll(int fd, absl::Time deadline, size_t max_bytes, std::string& bytes) {
  char buffer[65536];
  while (true) {
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    const int ready = left > 0 ? poll(&wait, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return absl::DeadlineExceededError("it took too long");
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return absl::OkStatus();
    bytes.append(buffer, static_cast<size_t>(n));
    if (bytes.size() > max_bytes) return absl::ResourceExhaustedError("it wrote too much");
  }
}

}  // namespace

absl::StatusOr<std::string> RunTool(const std::vector<std::string>& words, size_t max_bytes,
                                    absl::Duration patience) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::UnavailableError("no pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    return absl::UnavailableError(absl::StrCat("the ", words[0], " tool is not installed"));
  }
  std::string bytes;
  const absl::Status read = ReadAll(ends[0], absl::Now() + patience, max_bytes, bytes);
  close(ends[0]);
  if (!read.ok()) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!read.ok()) return read;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return absl::InternalError(absl::StrCat("the ", words[0], " tool failed (",
                                            WIFEXITED(status) ? WEXITSTATUS(status) : -1, ")"));
  }
  return bytes;
}

}  // namespace videonsa::client
