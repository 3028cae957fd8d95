#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/media/decoder/sandbox.h"
#include "runtime/media/decoder_launch.h"
#include "runtime/media/decoder_process.h"
#include "runtime/media/media_source.h"

namespace videonsa {
namespace {

namespace fs = std::filesystem;

std::string HostileDecoder() {
  return (fs::canonical("/proc/self/exe").parent_path() / "hostile_decoder").string();
}

decoder::OpenBody OpenVideo() {
  decoder::OpenBody open{};
  open.kind = decoder::MediaKind::kVideo;
  open.threads = 1;
  open.max_pixels = 100;
  open.max_duration_ms = 1000;
  open.max_packets = 10;
  open.max_streams = 1;
  return open;
}

// What the hostile decoder says of its attempt, or the error.
std::string Attempt(const std::string& what, DecoderProcess& process, absl::Duration timeout) {
  const auto input = OpenSource({.bytes = std::make_shared<const std::string>(what)});
  if (!input.ok()) return input.status().ToString();
  const DecodeLimits limits{.timeout = Clock::Real().Monotonic() + timeout};
  const auto facts = process.Open(OpenVideo(), input->get(), limits);
  return facts.ok() ? facts->codec : facts.status().ToString();
}

std::string Attempt(const std::string& what) {
  const auto process = DecoderProcess::Start(HostileDecoder());
  if (!process.ok()) return process.status().ToString();
  return Attempt(what, **process, absl::Seconds(30));
}

TEST(DecoderLaunchTest, WhatDecodingNeedsIsAllowed) { EXPECT_EQ(Attempt("thread"), "done"); }

TEST(DecoderLaunchTest, EndsWhenItsProcessorTimeIsUp) {
  const auto process = DecoderProcess::Start(HostileDecoder(), {.cpu_seconds = 1});
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_NE(Attempt("burn", **process, absl::Seconds(60)).find("DECODER_DIED"), std::string::npos);
  EXPECT_EQ((*process)->exit(), DecoderExit::kCpuLimit);
}

TEST(DecoderLaunchTest, EndsWhenTheWallClockSaysSo) {
  const auto process = DecoderProcess::Start(HostileDecoder());
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_NE(Attempt("burn", **process, absl::Milliseconds(50)).find("MEDIA_TOO_LARGE"),
            std::string::npos);
  EXPECT_EQ((*process)->exit(), DecoderExit::kWallLimit);
  EXPECT_FALSE((*process)->Alive());
}

TEST(DecoderLaunchTest, SaysWhatFailed) {
  const auto missing = DecoderProcess::Start("/nonexistent/decoder");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(missing.status().message().find("exec failed with errno 2"), std::string::npos)
      << missing.status();
}

// Sanitized decoders are not locked in: their runtime opens files and maps what it likes.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
class EscapeTest : public testing::TestWithParam<const char*> {};

TEST_P(EscapeTest, IsRefused) {
  const std::string name = GetParam();
  const bool needs_landlock = name.starts_with("open-") || name.starts_with("exec-");
  const bool refused = Attempt(name).substr(0, 3) == "no ";
  EXPECT_TRUE(refused || (needs_landlock && !HasFileSandbox())) << name;
}

INSTANTIATE_TEST_SUITE_P(Files, EscapeTest,
                         testing::Values("open-passwd", "open-home", "open-tmp", "open-proc",
                                         "open-device", "open-parent", "create", "write-library",
                                         "unlink", "mkdir"));
INSTANTIATE_TEST_SUITE_P(Network, EscapeTest,
                         testing::Values("socket-inet", "socket-inet6", "socket-unix",
                                         "socket-netlink", "connect"));
INSTANTIATE_TEST_SUITE_P(Processes, EscapeTest,
                         testing::Values("exec-true", "exec-shell", "exec-memory", "fork", "vfork",
                                         "clone", "clone-namespace", "kill-parent", "signal-parent",
                                         "trace-parent", "copy-parent"));
INSTANTIATE_TEST_SUITE_P(Kernel, EscapeTest,
                         testing::Values("namespace", "mount", "chroot", "root", "io-uring", "bpf",
                                         "perf", "userfault", "keys", "reboot"));
INSTANTIATE_TEST_SUITE_P(Limits, EscapeTest,
                         testing::Values("limits", "memory-twice", "memory-pieces"));

// Runs `act` in a child inside the decoder's own sandbox and returns how it ended.
int StatusInside(const std::function<void()>& act) {
  const pid_t pid = fork();
  if (pid == 0) {
    if (!decoder::EnterSandbox()) _exit(99);
    act();
    _exit(7);
  }
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

TEST(InsideTest, ForbiddenCallsKill) {
  const std::function<void()> acts[] = {
      [] { socket(AF_INET, SOCK_STREAM, 0); },
      [] { fork(); },
      [] { execl("/bin/true", "true", nullptr); },
      [] { kill(getppid(), 0); },
      [] { prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); },
      [] { mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); },
      [] { unlink("/tmp/videonsa-victim"); },
      [] { memfd_create("x", 0); },
      [] {
        if (write(2, "", 0) < 0) _exit(1);
      },
  };
  for (const auto& act : acts) {
    const int status = StatusInside(act);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        << &act - acts << ": status " << status;
  }
}

TEST(InsideTest, FilesCannotBeOpened) {
  const int status = StatusInside([] {
    if (open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES) _exit(3);
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

TEST(InsideTest, MemoryAndThreadsWork) {
  const int status = StatusInside([] {
    auto block = std::make_unique<char[]>(64 << 20);
    std::thread([&] { block[0] = 1; }).join();
    _exit(block[0] == 1 ? 5 : 6);
  });
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 5);
}

#endif

}  // namespace
}  // namespace videonsa
