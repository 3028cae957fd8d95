#include "runtime/media/decoder/sandbox.h"

#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <cerrno>
#include <initializer_list>

namespace videonsa::decoder {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // a sanitizer's runtime opens files and maps what it likes
#else
constexpr bool kSanitized = false;
#endif

constexpr int kAllowed[] = {
    // the job: socket, clip, ring
    SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(lseek),
    SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(close),
    // memory
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk),
    // threads
    SCMP_SYS(futex), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    // signals to itself
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    // time and chance
    SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getrandom)};

constexpr int kRefused[] = {SCMP_SYS(openat), SCMP_SYS(clone3), SCMP_SYS(sysinfo)};

bool AddRules(scmp_filter_ctx filter) {
  bool ok = true;
  for (const int call : kAllowed) ok &= seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0;
  for (const int call : kRefused) {
    const int error = call == SCMP_SYS(openat) ? EACCES : ENOSYS;
    ok &= seccomp_rule_add(filter, SCMP_ACT_ERRNO(error), call, 0) == 0;
  }
  // Memory that could be run never comes into being.
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) {
    ok &= seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                           SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) == 0;
  }
  // Threads, not processes.
  ok &= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                         SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)) == 0;
  ok &= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                         SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME)) == 0;
  return ok;
}

}  // namespace

bool EnterSandbox() {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (kSanitized) return true;
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (!filter) return false;
  const bool ok = AddRules(filter) && seccomp_load(filter) == 0;
  seccomp_release(filter);
  return ok;
}

}  // namespace videonsa::decoder
