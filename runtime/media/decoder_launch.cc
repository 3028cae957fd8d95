#include "runtime/media/decoder_launch.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <initializer_list>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/base/error.h"
#include "runtime/media/decoder/wire.h"
#include "runtime/media/owned_fd.h"

namespace videonsa {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // shadow memory, /proc and scratch files break the limits
#else
constexpr bool kSanitized = false;
#endif

constexpr rlim_t kDescriptors = 64;  // the loader opens one library at a time
constexpr int kStatusFd = decoder::kChildSocket + 1;
constexpr int kRulesFd = decoder::kChildSocket + 2;
constexpr int kFirstFreeFd = 16;  // where descriptors wait that are to be renumbered

// What a dynamically linked program does before main and a decoder after it.
constexpr int kAllowed[] = {SCMP_SYS(read),
                            SCMP_SYS(write),
                            SCMP_SYS(pread64),
                            SCMP_SYS(lseek),
                            SCMP_SYS(close),
                            SCMP_SYS(fstat),
                            SCMP_SYS(newfstatat),
                            SCMP_SYS(statx),
                            SCMP_SYS(access),
                            SCMP_SYS(faccessat),
                            SCMP_SYS(faccessat2),
                            SCMP_SYS(readlink),
                            SCMP_SYS(readlinkat),
                            SCMP_SYS(getdents64),
                            SCMP_SYS(getcwd),
                            SCMP_SYS(statfs),
                            SCMP_SYS(fstatfs),
                            SCMP_SYS(fcntl),
                            SCMP_SYS(mmap),
                            SCMP_SYS(munmap),
                            SCMP_SYS(mremap),
                            SCMP_SYS(mprotect),
                            SCMP_SYS(madvise),
                            SCMP_SYS(brk),
                            SCMP_SYS(mlock),
                            SCMP_SYS(get_mempolicy),
                            SCMP_SYS(futex),
                            SCMP_SYS(exit),
                            SCMP_SYS(exit_group),
                            SCMP_SYS(set_tid_address),
                            SCMP_SYS(arch_prctl),
                            SCMP_SYS(set_robust_list),
                            SCMP_SYS(rseq),
                            SCMP_SYS(sched_yield),
                            SCMP_SYS(sched_getaffinity),
                            SCMP_SYS(getpid),
                            SCMP_SYS(gettid),
                            SCMP_SYS(getuid),
                            SCMP_SYS(geteuid),
                            SCMP_SYS(getgid),
                            SCMP_SYS(getegid),
                            SCMP_SYS(rt_sigaction),
                            SCMP_SYS(rt_sigprocmask),
                            SCMP_SYS(rt_sigreturn),
                            SCMP_SYS(sigaltstack),
                            SCMP_SYS(clock_gettime),
                            SCMP_SYS(gettimeofday),
                            SCMP_SYS(clock_nanosleep),
                            SCMP_SYS(getrandom),
                            SCMP_SYS(uname),
                            SCMP_SYS(sysinfo),
                            SCMP_SYS(getsockopt),
                            SCMP_SYS(recvmsg),
                            SCMP_SYS(sendmsg),
                            SCMP_SYS(recvfrom),
                            SCMP_SYS(sendto),
                            SCMP_SYS(getppid),
                            SCMP_SYS(poll),
                            SCMP_SYS(ppoll),
                            SCMP_SYS(prctl),
                            SCMP_SYS(seccomp),
                            SCMP_SYS(execve)};

bool AddRules(scmp_filter_ctx filter) {
  bool ok = true;
  for (const int call : kAllowed) ok &= seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0;
  const auto allow_if = [&](int call, scmp_arg_cmp condition) {
    ok &= seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, condition) == 0;
  };
  constexpr int kWriting = O_ACCMODE | O_CREAT | O_TRUNC;
  allow_if(SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, kWriting, O_RDONLY));
  allow_if(SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
  allow_if(SCMP_SYS(prlimit64), SCMP_A2(SCMP_CMP_EQ, 0));  // reading its limits
  ok &= seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0;
  return ok;
}

// The filter as the kernel takes it; empty if it cannot be made.
std::vector<sock_filter> BuildFilter() {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  if (!filter) return {};
  const OwnedFd file(memfd_create("filter", MFD_CLOEXEC));
  std::vector<sock_filter> program;
  if (AddRules(filter) && file.get() >= 0 && seccomp_export_bpf(filter, file.get()) == 0) {
    const off_t bytes = lseek(file.get(), 0, SEEK_END);
    program.resize(bytes / sizeof(sock_filter));
    if (pread(file.get(), program.data(), bytes, 0) != bytes) program.clear();
  }
  seccomp_release(filter);
  return program;
}

const std::vector<sock_filter>& Filter() {
  static const auto& program = *new std::vector<sock_filter>(BuildFilter());
  return program;
}

constexpr uint64_t kRead = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t kRun = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE;
constexpr uint64_t kAllFileRights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;  // of the first version

bool AllowPath(int rules, const char* path, uint64_t rights) {
  const OwnedFd file(open(path, O_PATH | O_CLOEXEC));
  if (file.get() < 0) return false;
  landlock_path_beneath_attr rule{};
  rule.allowed_access = rights;
  rule.parent_fd = file.get();
  return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
}

// A Landlock rule set for `binary`, or none if the kernel has no Landlock.
OwnedFd FileRules(const std::string& binary) {
  landlock_ruleset_attr all{};
  all.handled_access_fs = kAllFileRights;
  OwnedFd rules(static_cast<int>(syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0)));
  if (rules.get() < 0) return rules;
  AllowPath(rules.get(), binary.c_str(), kRun);
  for (const char* loader : {"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"}) {
    AllowPath(rules.get(), loader, kRun);
  }
  for (const char* folder : {"/lib", "/lib64", "/usr/lib", "/usr/local/lib"}) {
    AllowPath(rules.get(), folder, kRead);
  }
  AllowPath(rules.get(), "/etc/ld.so.cache", LANDLOCK_ACCESS_FS_READ_FILE);
  return rules;
}

// Everything below runs in the new process before it has a program of its own: system calls only.

struct LaunchPlan {
  const char* binary;
  int socket, status, rules;
  sock_fprog filter;
  DecoderLimits limits;
};

bool SetLimit(int resource, int64_t value, int64_t grace = 0) {
  const rlimit limit{static_cast<rlim_t>(value), static_cast<rlim_t>(value + grace)};
  return setrlimit(resource, &limit) == 0;
}

void ResetSignals() {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool ArrangeDescriptors(const LaunchPlan& plan) {
  const int null = open("/dev/null", O_RDWR);
  return null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 &&
         dup2(plan.socket, decoder::kChildSocket) == decoder::kChildSocket &&
         dup3(plan.status, kStatusFd, O_CLOEXEC) == kStatusFd &&
         (plan.rules < 0 || dup3(plan.rules, kRulesFd, O_CLOEXEC) == kRulesFd) &&
         close_range(kRulesFd + 1, ~0U, 0) == 0;
}

bool GiveWay(int niceness) {
  errno = 0;
  return nice(niceness) != -1 || errno == 0;
}

bool LowerLimits(const DecoderLimits& limits) {
  return SetLimit(RLIMIT_CORE, 0) && SetLimit(RLIMIT_NOFILE, kDescriptors) &&
         SetLimit(RLIMIT_CPU, limits.cpu_seconds, 1) && GiveWay(limits.niceness) &&
         (kSanitized || (SetLimit(RLIMIT_FSIZE, 0) && SetLimit(RLIMIT_AS, limits.memory_bytes)));
}

bool LockIn(const LaunchPlan& plan) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  if (kSanitized) return true;
  if (plan.rules >= 0 && syscall(SYS_landlock_restrict_self, kRulesFd, 0) != 0) return false;
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &plan.filter) == 0;
}

// Steps as they are reported.
enum LaunchStep : int { kDescriptorStep = 1, kLimitStep, kSandboxStep, kProgramStep };
struct LaunchError {
  int step = 0;
  int error = 0;
};

[[noreturn]] void RunChild(const LaunchPlan& plan) {
  setpgid(0, 0);  // a terminal's interrupt is for the server, which ends its decoders itself
  ResetSignals();
  LaunchError error;
  if (!ArrangeDescriptors(plan)) {
    error = {kDescriptorStep, errno};
  } else if (!LowerLimits(plan.limits)) {
    error = {kLimitStep, errno};
  } else if (!LockIn(plan)) {
    error = {kSandboxStep, errno};
  } else {
    char name[] = "videonsa-decoder";
    char* arguments[] = {name, nullptr};
    char* environment[] = {nullptr};
    execve(plan.binary, arguments, environment);
    error = {kProgramStep, errno};
  }
  const int status = error.step == kDescriptorStep ? plan.status : kStatusFd;
  if (write(status, &error, sizeof(error)) < 0) _exit(126);
  _exit(127);
}

absl::Status StartFailed(const LaunchError& error) {
  static constexpr const char* kSteps[] = {"fork", "descriptors", "limits", "sandbox", "exec"};
  return MakeError(absl::StatusCode::kFailedPrecondition, "DECODER_NOT_STARTED",
                   absl::StrCat("videonsa-decoder cannot be started: ", kSteps[error.step],
                                " failed with errno ", error.error));
}

OwnedFd OutOfTheWay(int fd) { return OwnedFd(fcntl(fd, F_DUPFD_CLOEXEC, kFirstFreeFd)); }

}  // namespace

absl::StatusOr<pid_t> LaunchDecoder(const std::string& binary, int socket,
                                    const DecoderLimits& limits) {
  const std::vector<sock_filter>& filter = Filter();
  if (filter.empty() && !kSanitized) return StartFailed({kSandboxStep, ENOSYS});
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return StartFailed({0, errno});
  const OwnedFd read_end(ends[0]);
  OwnedFd write_end(ends[1]);
  const OwnedFd rules = kSanitized ? OwnedFd() : FileRules(binary);
  const OwnedFd child_socket = OutOfTheWay(socket);
  OwnedFd child_status = OutOfTheWay(write_end.get());
  const OwnedFd child_rules = rules.get() < 0 ? OwnedFd() : OutOfTheWay(rules.get());
  const LaunchPlan plan{
      binary.c_str(),
      child_socket.get(),
      child_status.get(),
      child_rules.get(),
      {static_cast<unsigned short>(filter.size()), const_cast<sock_filter*>(filter.data())},
      limits};
  const pid_t pid = _Fork();
  if (pid < 0) return StartFailed({0, errno});
  if (pid == 0) RunChild(plan);
  write_end.Reset();
  child_status.Reset();
  // The pipe closes when the program starts.
  LaunchError error;
  ssize_t got;
  do {
    got = read(read_end.get(), &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  if (got == 0) return pid;
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  error.step = std::clamp(error.step, 0, static_cast<int>(kProgramStep));
  return StartFailed(error);
}

bool HasFileSandbox() {
  return syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 1;
}

}  // namespace videonsa
