#pragma once

#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "runtime/base/hash.h"

namespace videonsa {

/// One secret of this process, and from it a salt for each tenant: HMAC-SHA256(secret, tenant).
///
/// Everything that is found again by content (decoded patches, vision features, KV pages, and with
/// them the pages of sessions) is found by a key made under its tenant's salt. So equal content of
/// two tenants has unrelated keys, and nobody outside can compute or guess a key, whatever it knows
/// of another tenant's content. Keys mean nothing to another process.
///
/// Threads: any; constant after creation.
class TenantSalts {
 public:
  /// A secret of 256 bits from the system's random source.
  TenantSalts();
  /// A given secret, for tests.
  explicit TenantSalts(std::string secret) : secret_(std::move(secret)) {}

  Sha256Digest Of(absl::string_view tenant) const { return HmacSha256(secret_, tenant); }

 private:
  std::string secret_;
};

}  // namespace videonsa
