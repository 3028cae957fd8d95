#include "runtime/media/decoder/sandbox.h"

#include <sys/prctl.h>
#include <sys/resource.h>

namespace videonsa::decoder {
namespace {

// Two 8.85 Mpx 10-bit reference sets, thread stacks and libraries.
[[maybe_unused]] constexpr rlim_t kAddressSpaceBytes = rlim_t{2048} << 20;
constexpr rlim_t kDescriptors = 16;

void Limit(int resource, rlim_t value) {
  rlimit limit{value, value};
  setrlimit(resource, &limit);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // shadow memory needs the address space
#else
constexpr bool kSanitized = false;
#endif

}  // namespace

void EnterSandbox() {
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  Limit(RLIMIT_CORE, 0);
  Limit(RLIMIT_FSIZE, 0);
  Limit(RLIMIT_NOFILE, kDescriptors);
  if (!kSanitized) Limit(RLIMIT_AS, kAddressSpaceBytes);
}

}  // namespace videonsa::decoder
