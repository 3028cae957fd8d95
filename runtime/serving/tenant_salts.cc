#include "runtime/serving/tenant_salts.h"

#include <sys/random.h>

#include "runtime/base/check.h"

namespace videonsa {

TenantSalts::TenantSalts() : secret_(sizeof(Sha256Digest), '\0') {
  VNSA_CHECK_EQ(getrandom(secret_.data(), secret_.size(), 0), static_cast<ssize_t>(secret_.size()));
}

}  // namespace videonsa
