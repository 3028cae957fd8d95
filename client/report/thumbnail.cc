#include "client/report/thumbnail.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

extern char** environ;

namespace videonsa::client {
namespace {

constexpr size_t kMaxBytes = 4 << 20;
constexpr absl::Duration kPatience = absl::Seconds(15);

// Everything the pipe gives until its end, the limit or the deadline.
std::string ReadAll(int fd, absl::Time deadline) {
  std::string bytes;
  char buffer[65536];
  while (bytes.size() < kMaxBytes) {
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left <= 0 || poll(&wait, 1, static_cast<int>(left)) <= 0) break;
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    bytes.append(buffer, static_cast<size_t>(n));
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::string> MakeThumbnail(const std::string& path, absl::Duration at) {
  const std::string time = absl::StrFormat("%.3f", absl::ToDoubleSeconds(at));
  const std::string file = absl::StrCat("file:", path);
  std::vector<const char*> words = {
      "ffmpeg",     "-v",     "quiet",      "-nostdin", "-protocol_whitelist",
      "file,pipe",  "-ss",    time.c_str(), "-i",       file.c_str(),
      "-frames:v",  "1",      "-an",        "-vf",      "scale=320:-2",
      "-c:v",       "mjpeg",  "-q:v",       "4",        "-f",
      "image2pipe", "pipe:1", nullptr};
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::UnavailableError("no pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = posix_spawnp(&child, words[0], &actions, nullptr,
                                 const_cast<char* const*>(words.data()), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    return absl::UnavailableError("the ffmpeg tool is not installed");
  }
  std::string jpeg = ReadAll(ends[0], absl::Now() + kPatience);
  close(ends[0]);
  // It has either finished or lost its reader; either way nothing more is wanted of it.
  kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!absl::StartsWith(jpeg, "\xff\xd8") || jpeg.size() >= kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ffmpeg tool gave no picture of ", path, " at ", time, " s"));
  }
  return jpeg;
}

}  // namespace videonsa::client
