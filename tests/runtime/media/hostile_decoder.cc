// A decoder that has been replaced or taken over: the bytes of its input say what it tries. It
// answers with facts whose codec is "done" if it got its way, else "no <errno>".
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "runtime/media/decoder/channel.h"
#include "runtime/media/decoder/wire.h"

namespace videonsa::decoder {
namespace {

bool Opens(const char* path, int flags) { return open(path, flags, 0600) >= 0; }

bool Runs(const char* path) {
  char* const none[] = {nullptr};
  execve(path, none, none);
  return false;
}

// Whether a child comes to be.
bool Forks(const std::function<long()>& fork_like) {
  const long pid = fork_like();
  if (pid == 0) _exit(0);
  return pid > 0;
}

bool ReadsParent() {
  const std::string path = "/proc/" + std::to_string(getppid()) + "/mem";
  return Opens(path.c_str(), O_RDONLY);
}

bool CopiesParent() {
  char here[8];
  const iovec local{here, sizeof(here)};
  const iovec remote{reinterpret_cast<void*>(0x400000), sizeof(here)};
  return process_vm_readv(getppid(), &local, 1, &remote, 1, 0) >= 0;
}

bool Takes(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory != MAP_FAILED;
}

bool TakesInPieces(size_t bytes) {
  for (size_t taken = 0; taken < bytes; taken += 16 << 20) {
    if (!Takes(16 << 20)) return false;
  }
  return true;
}

bool RaisesLimit() {
  const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
  return setrlimit(RLIMIT_AS, &none) == 0;
}

bool RunsFromMemory() {
  const int file = static_cast<int>(syscall(SYS_memfd_create, "x", 0));
  return file >= 0;
}

const std::map<std::string, std::function<bool()>>& Attempts() {
  static const auto& all = *new std::map<std::string, std::function<bool()>>{
      {"open-passwd", [] { return Opens("/etc/passwd", O_RDONLY); }},
      {"open-home", [] { return Opens("/root", O_RDONLY | O_DIRECTORY); }},
      {"open-tmp", [] { return Opens("/tmp", O_RDONLY | O_DIRECTORY); }},
      {"open-proc", [] { return Opens("/proc/self/environ", O_RDONLY); }},
      {"open-device", [] { return Opens("/dev/zero", O_RDONLY); }},
      {"open-parent", ReadsParent},
      {"create", [] { return Opens("/tmp/videonsa-hostile", O_WRONLY | O_CREAT); }},
      {"write-library", [] { return Opens("/usr/lib/os-release", O_WRONLY); }},
      {"unlink", [] { return unlink("/tmp/videonsa-victim") == 0; }},
      {"mkdir", [] { return mkdirat(AT_FDCWD, "/tmp/videonsa-dir", 0700) == 0; }},
      {"socket-inet", [] { return socket(AF_INET, SOCK_STREAM, 0) >= 0; }},
      {"socket-inet6", [] { return socket(AF_INET6, SOCK_DGRAM, 0) >= 0; }},
      {"socket-unix", [] { return socket(AF_UNIX, SOCK_STREAM, 0) >= 0; }},
      {"socket-netlink", [] { return socket(AF_NETLINK, SOCK_RAW, 0) >= 0; }},
      {"connect",
       [] {
         sockaddr_in to{};
         to.sin_family = AF_INET;
         return connect(kChildSocket, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0;
       }},
      {"exec-true", [] { return Runs("/bin/true"); }},
      {"exec-shell", [] { return Runs("/bin/sh"); }},
      {"exec-memory", RunsFromMemory},
      {"fork", [] { return Forks([] { return static_cast<long>(fork()); }); }},
      {"vfork", [] { return Forks([] { return syscall(SYS_vfork); }); }},
      {"clone", [] { return Forks([] { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }); }},
      {"clone-namespace",
       [] {
         return Forks([] { return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); });
       }},
      {"kill-parent", [] { return kill(getppid(), 0) == 0; }},
      {"signal-parent", [] { return syscall(SYS_tgkill, getppid(), getppid(), 0) == 0; }},
      {"trace-parent", [] { return ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0; }},
      {"copy-parent", CopiesParent},
      {"namespace", [] { return unshare(CLONE_NEWNS) == 0; }},
      {"mount", [] { return mount("none", "/mnt", "tmpfs", 0, nullptr) == 0; }},
      {"chroot", [] { return chroot("/tmp") == 0; }},
      {"root", [] { return setuid(0) == 0; }},
      {"io-uring",
       [] {
         io_uring_params params{};
         return syscall(SYS_io_uring_setup, 4, &params) >= 0;
       }},
      {"bpf", [] { return syscall(SYS_bpf, 0, nullptr, 0) >= 0; }},
      {"perf", [] { return syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0) >= 0; }},
      {"userfault", [] { return syscall(SYS_userfaultfd, 0) >= 0; }},
      {"keys", [] { return syscall(SYS_keyctl, 0, -3, 1) >= 0; }},
      {"reboot", [] { return syscall(SYS_reboot, 0, 0, 0, nullptr) == 0; }},
      {"limits", RaisesLimit},
      {"memory-twice", [] { return Takes(size_t{4} << 30); }},
      {"memory-pieces", [] { return TakesInPieces(size_t{2} << 30); }},
      // Allowed, so that "no" means something.
      {"thread",
       [] { return Opens("/usr/lib/os-release", O_RDONLY) && getppid() >= 0 && Takes(1 << 20); }},
  };
  return all;
}

[[noreturn]] void Hang() {
  Message message;
  int fd;
  while (ReceiveMessage(kChildSocket, &message, &fd) != ReceiveResult::kClosed) {
  }
  _exit(0);
}

[[noreturn]] void Burn() {
  std::atomic<uint64_t> spins{0};
  while (true) spins.fetch_add(1);
}

void Answer(bool done, int error) {
  Message message;
  message.type = MessageType::kFacts;
  FactsBody& facts = message.facts;
  std::strcpy(facts.container, "hostile");
  if (done) {
    std::strcpy(facts.codec, "done");
  } else {
    std::snprintf(facts.codec, sizeof(facts.codec), "no %d", error);
  }
  facts.width = facts.height = 2;
  facts.fps_num = facts.fps_den = 1;
  facts.num_streams = facts.num_packets = 1;
  facts.rgb_bytes = 12;
  SendMessage(kChildSocket, message);
}

int Run() {
  Message hello;
  hello.type = MessageType::kHello;
  hello.version = kWireVersion;
  SendMessage(kChildSocket, hello);
  Message message;
  int input = -1;
  if (ReceiveMessage(kChildSocket, &message, &input) != ReceiveResult::kMessage) return 1;
  char text[64] = {};
  if (pread(input, text, sizeof(text) - 1, 0) < 0) return 1;
  if (std::string(text) == "burn") Burn();
  const auto attempt = Attempts().find(text);
  if (attempt == Attempts().end()) return 1;
  const bool done = attempt->second();
  Answer(done, errno);
  Hang();
}

}  // namespace
}  // namespace videonsa::decoder

int main() { return videonsa::decoder::Run(); }
